import XCTest

@testable import Handbell

/// How the keychain's statuses are taken, without a keychain.
final class KeychainTests: XCTestCase {
    /// Only "not found" is nothing. Before the first unlock it is -25308; others are not told apart.
    func testOnlyNotFoundIsNothing() throws {
        let keychain = Item()
        let storage = KeychainStorage(keychain)
        XCTAssertNil(try storage.read())
        for status: Int32 in [-25308, -25293, -34018, -26276, -50, -128, -1] {
            keychain.answers = [status]
            XCTAssertThrowsError(try storage.read()) { error in
                XCTAssertEqual(error as? HandbellError, .storage("words (\(status))"))
            }
        }
        keychain.data = Data("a".utf8)
        XCTAssertEqual(try storage.read(), Data("a".utf8))
    }

    /// What is there is changed in its place; a step that fails leaves it as it was.
    func testAFailedWriteLosesNothing() throws {
        let (old, new) = (Data("old".utf8), Data("new".utf8))
        // What the steps answer before they work again, whether it fails, and which steps are made.
        let cases: [(Data?, [Int32], Bool, [String])] = [
            (old, [], false, ["change"]),
            (nil, [], false, ["change", "add"]),
            (old, [-25308], true, ["change"]),
            (nil, [-25300, -25308], true, ["change", "add"]),
            (nil, [-34018], true, ["change"]),
            (old, [-25300, -25299], false, ["change", "add", "change"]),
            (old, [-25300, -25299, -25308], true, ["change", "add", "change"]),
        ]
        for (data, answers, fails, steps) in cases {
            let keychain = Item()
            keychain.data = data
            keychain.answers = answers
            let storage = KeychainStorage(keychain)
            if fails {
                XCTAssertThrowsError(try storage.write(new), "\(answers)")
            } else {
                try storage.write(new)
            }
            XCTAssertEqual(keychain.data, fails ? data : new, "\(answers)")
            XCTAssertEqual(keychain.steps, steps, "\(answers)")
        }
    }
}

/// An item that answers with the statuses it is given, and then as it stands.
private final class Item: Keychain, @unchecked Sendable {
    var data: Data?
    var answers: [Int32] = []
    var steps: [String] = []

    private func next() -> Int32? { answers.isEmpty ? nil : answers.removeFirst() }

    func find() -> (Int32, Data?) {
        if let status = next() { return (status, nil) }
        return (data == nil ? KeychainStatus.notFound : KeychainStatus.success, data)
    }

    func change(to data: Data) -> Int32 {
        steps.append("change")
        if let status = next() { return status }
        guard self.data != nil else { return KeychainStatus.notFound }
        self.data = data
        return KeychainStatus.success
    }

    func add(_ data: Data) -> Int32 {
        steps.append("add")
        if let status = next() { return status }
        guard self.data == nil else { return KeychainStatus.isThere }
        self.data = data
        return KeychainStatus.success
    }

    func words(for _: Int32) -> String { "words" }
}
