import XCTest

@testable import Handbell

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// The whole way, against a running `handbell serve --twin`.
///
/// `HANDBELL_LIVE` names the back end that stands beside it; `test-on-linux.sh` starts both.
final class LiveTests: XCTestCase {
    private var backend: Backend!

    override func setUp() async throws {
        guard let address = ProcessInfo.processInfo.environment["HANDBELL_LIVE"],
            let url = URL(string: address)
        else { throw XCTSkip("No server is running: HANDBELL_LIVE names none") }
        backend = Backend(url)
    }

    /// With the back end's token: registered at once, reached, opened, and after the sign-out not.
    func testFromTheSignInToTheSignOut() async throws {
        try await backend.ask("proof", ["way": "token"])
        let (phone, mail) = (try await backend.phone(), person())
        let (keychain, container, backend) = (MemoryStorage(), MemoryStorage(), backend!)
        let source: IdentitySource = { try await backend.ask("identity", ["mail": mail])["token"] }
        let first = try await start(keychain, container, identity: source)
        let none = try await first.signIn(.fresh)
        XCTAssertNil(none)

        let device = try await start(keychain, container, identity: source)
        let standing = try await device.refresh(deviceToken: phone)
        XCTAssertEqual(standing, .active)
        let sent = try await backend.ask("send", ["mail": mail])
        XCTAssertEqual(sent["arrived"], "1")
        await device.report(.opened, of: Payload(["handbell": sent["id"] ?? ""]))
        let opened = try await backend.ask("opened", ["notification": sent["id"] ?? ""])
        XCTAssertEqual(opened["opened"], "1")

        let again = try await device.refresh(deviceToken: phone)
        XCTAssertEqual(again, .active)
        let result = try await device.signOut()
        XCTAssertEqual(result, .closed)
        let statuses = try await statuses(mail)
        XCTAssertEqual(statuses, ["closed"])
        let late = try await backend.ask("send", ["mail": mail])
        XCTAssertEqual(late["arrived"], "0")
    }

    /// A second sign-in by mail leaves the first user's session until its link is opened; then it is
    /// the second's phone alone.
    func testAPhoneChangesHandsByMail() async throws {
        try await backend.ask("proof", ["way": "link"])
        let (phone, one, two) = (try await backend.phone(), person(), person())
        let device = try await start(MemoryStorage(), MemoryStorage())
        var standing = try await device.register(deviceToken: phone, identity: .mail(one))
        XCTAssertEqual(standing, .pending)
        // Once more: another mail for the same session.
        standing = try await device.register(deviceToken: phone, identity: .mail(one))
        XCTAssertEqual(standing, .pending)
        try await open(one, number: 2)
        var refreshed = try await device.refresh(deviceToken: phone)
        XCTAssertEqual(refreshed, .active)

        standing = try await device.register(deviceToken: phone, identity: .mail(two))
        XCTAssertEqual(standing, .pending)
        refreshed = try await device.refresh(deviceToken: phone)
        XCTAssertEqual(refreshed, .pending)
        var sent = try await backend.ask("send", ["mail": one])
        XCTAssertEqual(sent["arrived"], "1")

        try await open(two)
        refreshed = try await device.refresh(deviceToken: phone)
        XCTAssertEqual(refreshed, .active)
        sent = try await backend.ask("send", ["mail": one])
        XCTAssertEqual(sent["arrived"], "0")
        let result = try await device.signOut()
        XCTAssertEqual(result, .closed)
        let left = try await statuses(one) + statuses(two)
        XCTAssertEqual(Set(left), ["closed"])
    }

    /// Both sessions are closed by a sign-out, and a claim that another has replaced is closed too.
    func testASignOutLeavesNothingOpen() async throws {
        try await backend.ask("proof", ["way": "link"])
        let phone = try await backend.phone()
        let (one, two, three) = (person(), person(), person())
        let device = try await start(MemoryStorage(), MemoryStorage())
        try await device.register(deviceToken: phone, identity: .mail(one))
        try await open(one)
        try await device.refresh(deviceToken: phone)
        for mail in [two, three] {
            try await device.register(deviceToken: phone, identity: .mail(mail))
        }
        let result = try await device.signOut()
        XCTAssertEqual(result, .closed)
        for mail in [two, three] {
            let opened = try await backend.ask("open", ["mail": mail])
            XCTAssertEqual(opened["status"], "410", "the claim of \(mail) is over")
        }
        let left = try await statuses(one) + statuses(two) + statuses(three)
        XCTAssertFalse(left.contains("active") || left.contains("pending"), "\(left)")
    }

    /// The app is deleted and installed again: nobody goes on with the session of before.
    func testAnotherInstallationEndsTheSession() async throws {
        try await backend.ask("proof", ["way": "token"])
        let (phone, mail, keychain) = (try await backend.phone(), person(), MemoryStorage())
        let identity = try await backend.ask("identity", ["mail": mail])["token"] ?? ""
        let device = try await start(keychain, MemoryStorage())
        try await device.register(deviceToken: phone, identity: .token(identity))
        let reinstalled = try await start(keychain, MemoryStorage())
        let standing = try await reinstalled.refresh(deviceToken: phone)
        XCTAssertNil(standing)
        let statuses = try await statuses(mail)
        XCTAssertEqual(statuses, ["closed"])
        // The object of the former installation holds a secret that is void.
        let gone = try await device.refresh(deviceToken: phone)
        XCTAssertNil(gone)
    }

    /// A session of the back end's key is adopted, in the place of the one before.
    func testASessionOfTheBackEndIsAdopted() async throws {
        try await backend.ask("proof", ["way": "token"])
        let (phone, mail, other) = (try await backend.phone(), person(), person())
        let device = try await start(MemoryStorage(), MemoryStorage())
        let identity = try await backend.ask("identity", ["mail": other])["token"] ?? ""
        try await device.register(deviceToken: phone, identity: .token(identity))
        let hex = phone.map { String(format: "%02x", $0) }.joined()
        let made = try await backend.ask("register", ["mail": mail, "token": hex])
        let standing = try await device.adopt(
            session: Int(made["id"] ?? "") ?? 0, secret: made["secret"] ?? "")
        XCTAssertEqual(standing, .active)
        await assertThrows(HandbellError.notASession) {
            try await device.adopt(session: 1, secret: "hbs_nothing")
        }
        let left = try await statuses(mail) + statuses(other)
        XCTAssertEqual(left, ["active", "closed"])
    }

    /// A network's sign-in page redirects what it gets: nothing that comes of it is taken for
    /// the server's answer.
    func testNoRedirectionIsFollowed() async throws {
        try await backend.ask("proof", ["way": "token"])
        let (phone, mail, keychain) = (try await backend.phone(), person(), MemoryStorage())
        let (container, backend) = (MemoryStorage(), backend!)
        let identity = try await backend.ask("identity", ["mail": mail])["token"] ?? ""
        let device = try await start(keychain, container)
        try await device.register(deviceToken: phone, identity: .token(identity))
        let captured = start(keychain, container, at: backend.url)
        do {
            let standing = try await captured.refresh(deviceToken: phone)
            XCTFail("\(String(describing: standing)) is not the server's answer")
        } catch let problem as Problem {
            XCTAssertEqual(problem.code, Problem.unknown)
            #if canImport(Darwin)
                XCTAssertEqual(problem.status, 307)
            #endif
        }
        let result = try await captured.signOut()
        XCTAssertEqual(result, .deferred)
        var left = try await statuses(mail)
        XCTAssertEqual(left, ["active"])
        let standing = try await device.refresh(deviceToken: phone)
        XCTAssertNil(standing)
        left = try await statuses(mail)
        XCTAssertEqual(left, ["closed"])
    }

    private func start(
        _ keychain: MemoryStorage, _ container: MemoryStorage, identity: IdentitySource? = nil
    ) async throws -> HandbellDevice {
        let address = try await backend.ask("server")["url"] ?? ""
        let server = try XCTUnwrap(URL(string: address))
        return start(keychain, container, at: server, identity: identity)
    }

    private func start(
        _ keychain: MemoryStorage, _ container: MemoryStorage, at server: URL,
        identity: IdentitySource? = nil
    ) -> HandbellDevice {
        let configuration = Configuration(
            server: server, app: "TEAM123456.com.sample.myapp", environment: .twin)
        return HandbellDevice(
            configuration, secrets: keychain, installation: container, identity: identity)
    }

    private func person() -> String {
        "\(UUID().uuidString.lowercased())@example.com"
    }

    private func open(_ mail: String, number: Int = 1) async throws {
        let opened = try await backend.ask("open", ["mail": mail, "number": "\(number)"])
        XCTAssertEqual(opened["status"], "200", "\(opened)")
    }

    private func statuses(_ mail: String) async throws -> [String] {
        let found = try await backend.ask("sessions", ["mail": mail])["statuses"] ?? "?"
        return found.split(separator: " ").map(String.init)
    }
}

/// The app's own back end, as `tests/device_backend.py` plays it.
private struct Backend: Sendable {
    let url: URL

    init(_ url: URL) { self.url = url }

    @discardableResult
    func ask(_ name: String, _ given: [String: String] = [:]) async throws -> [String: String] {
        var address = URLComponents(
            url: url.appendingPathComponent(name), resolvingAgainstBaseURL: false)!
        address.queryItems = given.map { URLQueryItem(name: $0.key, value: $0.value) }
        let (data, response) = try await URLSession.shared.data(from: address.url!)
        guard (response as? HTTPURLResponse)?.statusCode == 200 else {
            throw Problem(
                status: 500, code: name, detail: String(decoding: data, as: UTF8.self), fix: nil,
                retryAfter: nil)
        }
        let answer = try JSONSerialization.jsonObject(with: data) as? [String: Any] ?? [:]
        return answer.compactMapValues { $0 as? String }
    }

    /// Makes a virtual phone, and returns its device token.
    func phone() async throws -> Data {
        let hex = Array(try await ask("phone")["token"] ?? "")
        return Data(
            stride(from: 0, to: hex.count, by: 2).compactMap {
                UInt8(String(hex[$0...$0 + 1]), radix: 16)
            })
    }
}
