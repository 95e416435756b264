import XCTest

@testable import Handbell

/// Sign-ins that have to wait, attempts that are repeated, and occasions to refresh.
final class WaitingTests: XCTestCase {
    private let container = MemoryStorage()

    /// Who signs in before there is a device token is registered when there is one, also after a
    /// restart of the app.
    func testASignInWaitsForTheDeviceToken() async throws {
        let identities: [(Identity, String, String)] = [
            (.mail("a@x.example"), "mail", "a@x.example"), (.fresh, "identity_token", "jwt-1"),
        ]
        for (identity, member, value) in identities {
            let container = MemoryStorage()
            let phone = Phone { _ in .told(7, "active", "hbs_a") }
            let tokens = Notes<Int>()
            let source: IdentitySource = {
                tokens.add(1)
                return "jwt-\(tokens.count)"
            }
            let none = try await phone.start(container, identity: source).signIn(identity)
            XCTAssertNil(none)
            XCTAssertEqual(phone.stub.lines, [])

            let restarted = phone.start(container, identity: source)
            var isWaiting = try await restarted.isWaiting
            XCTAssertTrue(isWaiting)
            let standing = try await restarted.refresh(deviceToken: token)
            XCTAssertEqual(standing, .active)
            XCTAssertEqual(phone.stub.lines, ["POST"])
            XCTAssertEqual(phone.stub.asked.first?.body[member], value)
            isWaiting = try await restarted.isWaiting
            XCTAssertFalse(isWaiting)
            XCTAssertFalse(phone.keychain.text?.contains("a@x.example") ?? true)
        }
    }

    /// A token that serves once waits as long as the app runs, and is never written down.
    func testATokenThatServesOnceWaitsInMemoryAlone() async throws {
        let phone = Phone { _ in .told(7, "active", "hbs_a") }
        let device = phone.start(container)
        let none = try await device.signIn(.token("jwt"))
        XCTAssertNil(none)
        XCTAssertFalse(phone.keychain.text?.contains("jwt") ?? false)
        let gone = try await phone.start(container).isWaiting
        XCTAssertFalse(gone)
        let standing = try await device.refresh(deviceToken: token)
        XCTAssertEqual(standing, .active)
        XCTAssertEqual(phone.stub.asked.first?.body["identity_token"], "jwt")
    }

    /// Without a network the sign-in waits; each attempt brings a fresh token.
    func testEachAttemptBringsAFreshToken() async throws {
        let phone = Phone()
        let tokens = Notes<Int>()
        let source: IdentitySource = {
            tokens.add(1)
            return "jwt-\(tokens.count)"
        }
        let failed = try? await phone.start(container, identity: source)
            .register(deviceToken: token, identity: .fresh)
        XCTAssertNil(failed)
        XCTAssertEqual(
            phone.stub.asked.map { $0.body["identity_token"] },
            ["jwt-1", "jwt-2", "jwt-3", "jwt-4"])
        phone.stub.now { _ in .told(7, "active", "hbs_a") }
        let standing = try await phone.start(container, identity: source)
            .refresh(deviceToken: token)
        XCTAssertEqual(standing, .active)
        XCTAssertEqual(phone.stub.asked.map { $0.body["identity_token"] }, ["jwt-5"])
    }

    /// What the server refuses does not wait; what passes does. A back end may bring a better token.
    func testWhatIsRefusedDoesNotWait() async throws {
        let cases: [(Identity, Reply, Bool)] = [
            (.mail("nobody"), .problem(422, "registry-invalid"), false),
            (.mail("a@x.example"), .problem(403, "proof-required"), false),
            (.token("old"), .problem(403, "identity-refused"), false),
            (.fresh, .problem(403, "identity-refused"), true),
            (.mail("a@x.example"), .problem(429, "rate-limited"), true),
            (.mail("a@x.example"), .problem(503, "mail-unavailable"), true),
            (.mail("a@x.example"), .page(403), true),
            (.token("jwt"), .page(200), true),
            (.token("jwt"), .offline, true),
        ]
        for (identity, reply, waits) in cases {
            let phone = Phone { _ in reply }
            let device = phone.start(MemoryStorage(), identity: { "jwt" })
            do {
                try await device.register(deviceToken: token, identity: identity)
                XCTFail("\(reply) is no registration")
            } catch {
                XCTAssertFalse(error is CancellationError)
            }
            let isWaiting = try await device.isWaiting
            XCTAssertEqual(isWaiting, waits, "\(identity) \(reply)")
        }
    }

    /// Where nobody is signed in any more the wait is over, and the refresh goes on without it.
    func testAWaitForNobodyIsOver() async throws {
        let phone = Phone { _ in .told(7, "active", "hbs_a") }
        try await phone.start(container).register(deviceToken: token, identity: .token("jwt"))
        try await phone.start(container, identity: { "jwt" }).signIn(.fresh)
        phone.stub.now { _ in .told(7, "active") }
        let device = phone.start(container, identity: { nil })
        let standing = try await device.refresh(deviceToken: token)
        XCTAssertEqual(standing, .active)
        XCTAssertEqual(phone.stub.lines, ["PATCH /7 hbs_a"])
        let isWaiting = try await device.isWaiting
        XCTAssertFalse(isWaiting)
        await assertThrows(HandbellError.noIdentity) {
            try await phone.start(self.container).signIn(.fresh)
        }
    }

    /// A source that never comes to an end holds up nobody who signs in or out after it.
    func testASourceThatHangsIsBrokenOff() async throws {
        let gate = Gate()
        let phone = Phone { _ in .closed }
        let device = phone.start(
            container,
            identity: {
                await gate.open()
                try await Task.sleep(nanoseconds: 60_000_000_000)
                return "jwt"
            })
        async let registered = isOvertaken {
            try await device.register(deviceToken: token, identity: .fresh)
        }
        await gate.wait()
        let result = try await device.signOut()
        let wasOvertaken = await registered
        XCTAssertEqual(result, .closed)
        XCTAssertTrue(wasOvertaken)
        XCTAssertEqual(phone.stub.lines, [])
    }

    /// What passes is tried again after a growing pause, or after the one that the server asks for.
    func testWhatPassesIsTriedAgain() async throws {
        let phone = Phone { _ in .told(7, "active", "hbs_a") }
        let device = phone.start(container)
        try await device.register(deviceToken: token, identity: .token("jwt"))
        let replies = Notes<Int>()
        phone.stub.now { _ in
            replies.add(1)
            switch replies.count {
            case 1: return .failure(.networkConnectionLost)
            case 2: return .problem(503, "unavailable", headers: ["Retry-After": "7"])
            default: return .told(7, "active")
            }
        }
        let standing = try await device.refresh(deviceToken: token)
        XCTAssertEqual(standing, .active)
        let pauses = phone.pauses.all
        XCTAssertEqual(pauses.count, 2)
        XCTAssertTrue(0.5...1 ~= pauses[0] && 7...8 ~= pauses[1], "\(pauses)")
    }

    /// Coming to the front refreshes where something waits or has changed, or an hour is over, and
    /// where the refresh of the start has failed.
    func testTheFrontRefreshesWhereThereIsAReason() async throws {
        let phone = Phone { _ in .told(7, "active", "hbs_a") }
        let device = phone.start(container)
        await device.refreshIfNeeded()
        try await device.register(deviceToken: token, identity: .token("jwt"))
        await device.refreshIfNeeded()
        XCTAssertEqual(phone.stub.lines, ["POST"])

        phone.stub.now { _ in .page(200) }
        let restarted = phone.start(container)
        await restarted.refreshIfNeeded()
        XCTAssertEqual(phone.stub.lines, [])
        _ = try? await restarted.refresh(deviceToken: token)
        phone.stub.now { _ in .told(7, "active") }
        await restarted.refreshIfNeeded()
        await restarted.refreshIfNeeded()
        XCTAssertEqual(phone.stub.lines, ["PATCH /7 hbs_a"])

        let hurried = phone.start(container, fresh: 0)
        for _ in 0..<2 { try await hurried.refresh(deviceToken: token) }
        phone.stub.now { _ in .told(7, "active") }
        await hurried.refreshIfNeeded()
        XCTAssertEqual(phone.stub.lines, ["PATCH /7 hbs_a"])
    }

    /// The library refreshes at the occasions that it is told, as long as what it returned is kept.
    func testItFollowsTheOccasions() async throws {
        let phone = Phone { _ in .told(7, "active", "hbs_a") }
        let device = phone.start(container, fresh: 0)
        try await device.register(deviceToken: token, identity: .token("jwt"))
        phone.stub.now { _ in .told(7, "active") }
        let (center, name) = (NotificationCenter(), Notification.Name("front"))
        var following: Following? = device.follow([name], of: center)
        XCTAssertNotNil(following)
        center.post(name: name, object: nil)
        try await eventually("it is refreshed") { !phone.stub.lines.isEmpty }
        following = nil
        center.post(name: name, object: nil)
        try await device.refresh()
        XCTAssertEqual(phone.stub.lines.count, 2)
        XCTAssertTrue(HandbellDevice.occasions.contains(.NSSystemTimeZoneDidChange))
    }
}
