import XCTest

@testable import Handbell

/// The end of a session: by the user, by the server, by an uninstall.
final class SignOutTests: XCTestCase {
    private let container = MemoryStorage()

    private func phone(signedInAs secret: String = "hbs_a") async throws -> (Phone, HandbellDevice)
    {
        let phone = Phone { _ in .told(7, "active", secret) }
        let device = phone.start(container)
        try await device.register(deviceToken: token, identity: .token("jwt"))
        return (phone, device)
    }

    /// The active session and the one that waits for its link are both closed.
    func testEverySessionIsClosed() async throws {
        let (phone, device) = try await phone()
        phone.stub.now { _ in .told(8, "pending", "hbs_b") }
        try await device.register(deviceToken: token, identity: .mail("b@x.example"))
        phone.stub.now { _ in .closed }
        let result = try await device.signOut()
        XCTAssertEqual(result, .closed)
        XCTAssertEqual(phone.stub.lines, ["DELETE /8 hbs_b", "DELETE /7 hbs_a"])
        XCTAssertEqual(phone.record?.leaving, [])
    }

    /// Without a network the session is over on the phone at once, and at the server at the next
    /// occasion, also after a restart of the app.
    func testASignOutWithoutANetworkIsMadeGood() async throws {
        for occasion in ["refresh", "front", "registration", "sign-out"] {
            let container = MemoryStorage()
            let phone = Phone { _ in .told(7, "active", "hbs_a") }
            let device = phone.start(container)
            try await device.register(deviceToken: token, identity: .token("jwt"))
            phone.stub.now { _ in .offline }
            let result = try await device.signOut()
            XCTAssertEqual(result, .deferred)
            XCTAssertEqual(phone.stub.lines, ["DELETE /7 hbs_a", "DELETE /7 hbs_a"])
            let isRegistered = try await device.isRegistered
            XCTAssertFalse(isRegistered)

            phone.stub.now { $0.method == "DELETE" ? .closed : .told(8, "active", "hbs_b") }
            let restarted = phone.start(container)
            switch occasion {
            case "refresh":
                let standing = try await restarted.refresh(deviceToken: token)
                XCTAssertNil(standing)
            case "front": await restarted.refreshIfNeeded()
            case "sign-out":
                let result = try await restarted.signOut()
                XCTAssertEqual(result, .closed)
            default: try await restarted.register(deviceToken: token, identity: .token("jwt"))
            }
            XCTAssertEqual(phone.stub.lines.first, "DELETE /7 hbs_a", occasion)
            XCTAssertEqual(phone.record?.leaving, [], occasion)
        }
    }

    /// Only the server's own word ends a session; pages of proxies and networks say nothing.
    func testOnlyTheServersWordEndsASession() async throws {
        let others: [Reply] = [
            .page(401), .page(404), .page(403), .page(200), .page(302), .page(407), .page(410),
            .page(511), .answer(401, "", [:]), .json(401, #"{"error": "unauthorized"}"#),
            .json(401, #"{"status": 401, "code": "unauthorized"}"#),
            .problem(401, "token-expired"), .problem(404, "app-unknown"),
            .problem(404, "not-found"),
            .problem(403, "unauthorized"), .problem(410, "session-unknown"),
            .problem(403, "forbidden"), .problem(409, "app-ambiguous"),
            .answer(
                401, #"{"status": 404, "code": "unauthorized"}"#,
                ["Content-Type": "application/problem+json"]),
            .json(200, "[]"), .json(200, #"{"status": "active"}"#),
            .failure(.secureConnectionFailed), .failure(.timedOut),
        ]
        for reply in others {
            let (phone, device) = try await phone()
            phone.stub.now { _ in reply }
            do {
                let standing = try await device.refresh(deviceToken: token)
                XCTFail("\(reply) was taken for \(String(describing: standing))")
            } catch {
                XCTAssertFalse(error is CancellationError)
            }
            XCTAssertEqual(phone.secrets, ["hbs_a"], "\(reply)")
            let result = try await device.signOut()
            XCTAssertEqual(result, .deferred, "\(reply)")
            XCTAssertEqual(phone.record?.leaving.map(\.secret), ["hbs_a"], "\(reply)")
        }
        let own: [Reply] = [
            .void, .problem(404, "session-unknown"),
            .answer(
                401, #"{"status": 401, "code": "unauthorized", "more": {}}"#,
                ["Content-Type": "Application/Problem+JSON; charset=utf-8"]),
        ]
        for reply in own {
            let (phone, device) = try await phone()
            phone.stub.now { _ in reply }
            let standing = try await device.refresh(deviceToken: token)
            XCTAssertNil(standing)
            XCTAssertEqual(phone.secrets, [], "\(reply)")
        }
    }

    /// A server that wants a new proof for the device's token leaves the secret to sign out with.
    func testWhoHasToProveAnewKeepsTheSecret() async throws {
        let (phone, device) = try await phone()
        for status in [403, 409] {
            phone.stub.now { _ in .problem(status, "proof-required") }
            let standing = try await device.refresh(deviceToken: token)
            XCTAssertNil(standing)
            XCTAssertEqual(phone.secrets, ["hbs_a"])
        }
    }

    /// A registration that got no answer may have made a session that nobody can close: the
    /// sign-out says so, once.
    func testADoubtIsTold() async throws {
        let phone = Phone { _ in .failure(.timedOut) }
        let device = phone.start(container)
        let standing = try? await device.register(
            deviceToken: token, identity: .mail("a@x.example"))
        XCTAssertNil(standing)
        XCTAssertEqual(phone.stub.lines, ["POST"])
        let results = [
            try await phone.start(container).signOut(), try await device.signOut(),
        ]
        XCTAssertEqual(results, [.deferred, .closed])
    }

    /// Whoever used the app before it was deleted is not reached, and not gone on with.
    func testAnInstallationDoesNotGoOnWithTheSessionOfTheOneBefore() async throws {
        let (phone, device) = try await phone()
        phone.stub.now { _ in .told(8, "pending", "hbs_b") }
        try await device.register(deviceToken: token, identity: .mail("b@x.example"))
        _ = try await phone.start(MemoryStorage()).signIn(.mail("c@x.example"))

        phone.stub.now { $0.method == "DELETE" ? .closed : .told(7, "active") }
        let reinstalled = phone.start(MemoryStorage())
        let standing = try await reinstalled.refresh(deviceToken: token)
        XCTAssertNil(standing)
        XCTAssertEqual(Set(phone.stub.lines), ["DELETE /8 hbs_b", "DELETE /7 hbs_a"])
        let isWaiting = try await reinstalled.isWaiting
        XCTAssertFalse(isWaiting)
    }

    /// Neither a restart nor an update of the app is an installation; one from version 0.1 is none
    /// either, whose session lay alone in the keychain.
    func testAnUpdateKeepsTheSession() async throws {
        let (phone, _) = try await phone()
        phone.stub.now { _ in .told(7, "active") }
        let standing = try await phone.start(container).refresh(deviceToken: token)
        XCTAssertEqual(standing, .active)

        let old = Phone(keychain: #"{"id": 7, "secret": "hbs_old"}"#) { _ in .told(7, "active") }
        let container = MemoryStorage()
        for _ in 0..<2 {
            let updated = try await old.start(container).refresh(deviceToken: token)
            XCTAssertEqual(updated, .active)
            XCTAssertEqual(old.secrets, ["hbs_old"])
        }
        let reinstalled = try await old.start(MemoryStorage()).refresh(deviceToken: token)
        XCTAssertNil(reinstalled)
    }

    /// Before the first unlock neither place can be read: nothing is known then, and nothing lost.
    func testWhatCannotBeReadIsNotNothing() async throws {
        let locked = HandbellError.storage("locked")
        for places in [[0], [1], [0, 1]] {
            let container = MemoryStorage()
            let phone = Phone { _ in .told(7, "active", "hbs_a") }
            try await phone.start(container).register(deviceToken: token, identity: .token("jwt"))
            let all = [phone.keychain, container]
            for place in places { all[place].fail(locked) }
            let device = phone.start(container)
            await assertThrows(locked) { _ = try await device.isRegistered }
            await assertThrows(locked) { try await device.refresh(deviceToken: token) }
            await assertThrows(locked) { try await device.signOut() }
            await assertThrows(locked) {
                try await device.register(deviceToken: token, identity: .token("jwt"))
            }
            XCTAssertEqual(phone.stub.lines, ["POST"])
            for place in all { place.fail(nil) }
            let standing = try await device.refresh(deviceToken: token)
            XCTAssertEqual(standing, .active)
            XCTAssertEqual(phone.secrets, ["hbs_a"])
        }
    }

    /// A secret that can't be written down is told once all the same: it is kept, and written later.
    func testASecretThatCannotBeWrittenIsKept() async throws {
        let phone = Phone()
        let device = phone.start(container)
        phone.stub.now { [keychain = phone.keychain] _ in
            keychain.fail(.storage("full"))
            return .told(7, "active", "hbs_a")
        }
        await assertThrows(HandbellError.storage("full")) {
            try await device.register(deviceToken: token, identity: .token("jwt"))
        }
        phone.keychain.fail(nil)
        let isRegistered = try await device.isRegistered
        XCTAssertTrue(isRegistered)
        XCTAssertEqual(phone.secrets, ["hbs_a"])
    }

    /// A receipt speaks for the session that got the notification, and changes nothing.
    func testAReceiptSpeaksForTheSessionThatGotIt() async throws {
        let (phone, device) = try await phone()
        phone.stub.now { _ in .told(8, "pending", "hbs_b") }
        try await device.register(deviceToken: token, identity: .mail("b@x.example"))
        let kept = phone.keychain.text
        phone.stub.now { $0.bearer == "hbs_a" ? .void : .closed }
        // As the extension does it: a process of its own, with a container of its own.
        let extensions = phone.start(MemoryStorage())
        await extensions.report(.displayed, of: Payload(["handbell": "0123456789abcde"]))
        await extensions.report(.opened, of: Payload([:]))
        XCTAssertEqual(
            phone.stub.lines, ["POST /7/receipts hbs_a", "POST /8/receipts hbs_b"])
        XCTAssertEqual(
            phone.stub.asked.last?.body,
            ["notification_id": "0123456789abcde", "event": "displayed"])
        XCTAssertEqual(phone.keychain.text, kept)
    }
}
