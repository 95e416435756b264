import XCTest

@testable import Handbell

/// The rules by which the record of sessions changes.
final class RecordTests: XCTestCase {
    /// Whatever comes in whatever order: a secret that was told is kept until the server has said
    /// that it is void or has replaced it, and it lies in one place only.
    func testNoSecretDisappears() throws {
        let standings: [Standing] = [.pending, .active, .quarantined, .closed, .unknown]
        for seed in 0..<300 {
            var random = Numbers(UInt64(seed))
            var record = Record()
            var known: Set<String> = []
            for step in 0..<40 {
                let one = record.open.randomElement(using: &random)
                let standing = standings.randomElement(using: &random) ?? .unknown
                switch Int.random(in: 0..<7, using: &random) {
                case 0, 1:
                    let new = Session(id: step + 1, secret: "hbs_\(step)")
                    record.admit(new, standing)
                    known.insert(new.secret)
                case 2:
                    // The same person once more: the former secret of the session is void.
                    guard let one else { continue }
                    let new = Session(id: one.id, secret: "hbs_\(step)")
                    record.admit(new, .active)
                    known.remove(one.secret)
                    known.insert(new.secret)
                case 3:
                    guard let one else { continue }
                    XCTAssertTrue(record.confirm(one, as: one, standing))
                case 4:
                    guard let one else { continue }
                    XCTAssertTrue(record.forget(one))
                    known.remove(one.secret)
                case 5:
                    guard let gone = record.leaving.randomElement(using: &random) else { continue }
                    XCTAssertFalse(record.confirm(gone, as: gone, standing))
                    XCTAssertFalse(record.forget(gone))
                    record.closed(gone)
                    known.remove(gone.secret)
                default:
                    record.depart()
                    XCTAssertFalse(record.isRegistered)
                }
                let places = (record.open + record.leaving).map(\.secret)
                XCTAssertEqual(places.count, Set(places).count, "seed \(seed)")
                XCTAssertEqual(Set(places), known, "seed \(seed)")
                let data = try JSONEncoder().encode(record)
                XCTAssertEqual(try JSONDecoder().decode(Record.self, from: data), record)
            }
        }
    }

    /// A server that can never be reached does not let the keychain grow for ever.
    func testTheListOfTheLeavingHasAnEnd() {
        var record = Record()
        for id in 1...80 { record.retire(Session(id: id, secret: "hbs_\(id)")) }
        XCTAssertEqual(record.leaving.count, Record.mostLeaving)
        XCTAssertEqual(record.leaving.last?.id, 80)
    }

    /// What nobody can understand is no session, and does not keep the app from making one.
    func testWhatCannotBeUnderstoodIsNoSession() throws {
        for text in ["", "nonsense", "[]", "{}", #"{"id": "7"}"#, #"{"session": {"id": 7}}"#] {
            let vault = Vault(secrets: MemoryStorage(text), installation: MemoryStorage())
            XCTAssertFalse(try vault.load().isRegistered, text)
        }
    }
}
