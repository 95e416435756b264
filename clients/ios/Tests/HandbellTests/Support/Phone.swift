import Foundation
import XCTest

@testable import Handbell

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// Keeps bytes in memory, and can be told to fail.
final class MemoryStorage: Storage, @unchecked Sendable {
    private let lock = NSLock()
    private var data: Data?
    private var failure: HandbellError?

    init(_ text: String? = nil) { data = text.map { Data($0.utf8) } }

    func fail(_ failure: HandbellError?) {
        lock.withLock { self.failure = failure }
    }

    func read() throws -> Data? {
        try lock.withLock {
            if let failure { throw failure }
            return data
        }
    }

    func write(_ data: Data) throws {
        try lock.withLock {
            if let failure { throw failure }
            self.data = data
        }
    }

    var text: String? { lock.withLock { data.map { String(decoding: $0, as: UTF8.self) } } }
}

/// Counts, and remembers what it was given.
final class Notes<Note: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var notes: [Note] = []

    func add(_ note: Note) { lock.withLock { notes.append(note) } }
    var all: [Note] { lock.withLock { notes } }
    var count: Int { all.count }
}

/// A phone with the app on it: what survives a restart of the app, and what goes with the app.
final class Phone: Sendable {
    let keychain: MemoryStorage
    let stub: Stub
    /// How long the client has waited before each further attempt.
    let pauses = Notes<TimeInterval>()
    let signOutLimit: TimeInterval
    private let resting: Gate?

    /// With `resting` a pause lasts until it is broken off, and opens the gate when it begins.
    init(
        keychain: String? = nil, signOutLimit: TimeInterval = 60,
        resting: Gate? = nil,
        _ work: @escaping Stub.Work = { _ in .offline }
    ) {
        self.keychain = MemoryStorage(keychain)
        self.signOutLimit = signOutLimit
        self.resting = resting
        stub = Stub(work)
    }

    /// Starts the app: with another `container` it is another installation.
    func start(
        _ container: MemoryStorage, fresh: TimeInterval = 3600, identity: IdentitySource? = nil
    ) -> HandbellDevice {
        var timing = HandbellDevice.Timing()
        timing.fresh = fresh
        timing.signOut = signOutLimit
        timing.pause = { [pauses, resting] in
            pauses.add($0)
            guard let resting else { return }
            await resting.open()
            try await Task.sleep(nanoseconds: 60_000_000_000)
        }
        return HandbellDevice(
            Configuration(
                server: URL(string: "https://\(stub.host)")!, app: "TEAM123456.com.sample.myapp"),
            transport: stub.transport,
            secrets: keychain,
            installation: container,
            identity: identity,
            timing: timing)
    }

    /// What is kept, as it stands in the keychain.
    var record: Record? {
        try? Vault(secrets: keychain, installation: MemoryStorage()).peek()
    }

    /// The secrets that the device could still speak with for somebody.
    var secrets: [String] { (record?.open ?? []).map(\.secret) }
}

let token = Data([0x0f, 0x74, 0x47, 0x07, 0xbe, 0xbc])

func assertThrows<Failure: Error & Equatable>(
    _ expected: Failure, _ work: () async throws -> Void,
    file: StaticString = #filePath, line: UInt = #line
) async {
    do {
        try await work()
        XCTFail("nothing was thrown", file: file, line: line)
    } catch {
        XCTAssertEqual(error as? Failure, expected, "\(error)", file: file, line: line)
    }
}

/// What a call was overtaken with.
func isOvertaken(_ work: () async throws -> Void) async -> Bool {
    do {
        try await work()
        return false
    } catch {
        return error is CancellationError
    }
}

/// Waits until something is so; fails after ten seconds.
func eventually(
    _ what: String, file: StaticString = #filePath, line: UInt = #line,
    _ isSo: () async throws -> Bool
) async throws {
    for _ in 0..<1000 {
        if try await isSo() { return }
        try await Task.sleep(nanoseconds: 10_000_000)
    }
    XCTFail("not so: \(what)", file: file, line: line)
}

/// The same numbers for the same seed.
final class Numbers: RandomNumberGenerator, @unchecked Sendable {
    private let lock = NSLock()
    private var state: UInt64

    init(_ seed: UInt64) { state = seed }

    func below(_ end: Int) -> Int { Int(next() % UInt64(end)) }

    func next() -> UInt64 {
        // SplitMix64.
        lock.withLock {
            state &+= 0x9e37_79b9_7f4a_7c15
            var mixed = state
            mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
            mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
            return mixed ^ (mixed >> 31)
        }
    }
}
