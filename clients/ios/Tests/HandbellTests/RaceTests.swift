import XCTest

@testable import Handbell

/// Calls that meet: an answer counts only for the session that it was asked for.
final class RaceTests: XCTestCase {
    private let container = MemoryStorage()

    /// Whatever comes late for the former user's refresh, the new session stays.
    func testALateAnswerToTheFormersRefreshChangesNothing() async throws {
        let late: [Reply] = [
            .void, .problem(404, "session-unknown"), .told(7, "active"), .told(7, "closed"),
            .failure(.networkConnectionLost), .page(401),
        ]
        for reply in late {
            let phone = Phone { _ in .told(7, "active", "hbs_a") }
            let device = phone.start(MemoryStorage())
            try await device.register(deviceToken: token, identity: .token("a"))
            let (asked, gate) = phone.stub.hold("PATCH", reply) {
                $0.method == "POST" ? .told(8, "active", "hbs_b") : .void
            }
            async let refreshed = isOvertaken { try await device.refresh(deviceToken: token) }
            await asked.wait()
            try await device.register(deviceToken: token, identity: .token("b"))
            await gate.open()
            let wasOvertaken = await refreshed
            XCTAssertTrue(wasOvertaken, "\(reply)")
            XCTAssertEqual(phone.secrets, ["hbs_b"], "\(reply)")
        }
    }

    /// A registration that is answered after the sign-out is closed, and never kept.
    func testASignOutEndsARegistrationThatIsUnderWay() async throws {
        for status in ["active", "pending", "paused"] {
            let phone = Phone()
            let device = phone.start(MemoryStorage())
            let (asked, gate) = phone.stub.hold("POST", .told(7, status, "hbs_a"))
            async let registered = isOvertaken {
                try await device.register(deviceToken: token, identity: .token("a"))
            }
            await asked.wait()
            async let left = device.signOut()
            try await eventually("the sign-out is noted") { await device.generation == 2 }
            await gate.open()
            let (wasOvertaken, result) = (await registered, try await left)
            XCTAssertTrue(wasOvertaken, status)
            XCTAssertEqual(result, .closed, status)
            XCTAssertEqual(phone.stub.lines, ["POST", "DELETE /7 hbs_a"], status)
            XCTAssertEqual(phone.secrets, [], status)
            XCTAssertEqual(phone.record?.leaving, [], status)
        }
    }

    /// A keychain that fails when a late answer comes brings nothing back that was signed out.
    func testALateAnswerIsNotedOnWhatIsKnown() async throws {
        let phone = Phone { _ in .told(6, "active", "hbs_old") }
        let device = phone.start(container)
        try await device.register(deviceToken: token, identity: .token("old"))
        let (asked, gate) = phone.stub.hold("POST", .told(7, "active", "hbs_a"))
        async let registered: Standing = device.register(
            deviceToken: token, identity: .token("a"))
        await asked.wait()
        async let left = device.signOut()
        try await eventually("the sign-out is noted") { phone.record?.open == [] }
        phone.keychain.fail(.storage("locked"))
        await gate.open()
        let (standing, result) = (try? await registered, try await left)
        XCTAssertNil(standing)
        XCTAssertEqual(result, .deferred)
        phone.keychain.fail(nil)
        let refreshed = try await device.refresh(deviceToken: token)
        XCTAssertNil(refreshed)
        XCTAssertEqual(phone.stub.lines, ["POST hbs_old", "DELETE /6 hbs_old", "DELETE /7 hbs_a"])
        XCTAssertEqual(phone.record?.leaving, [])
    }

    /// Who signs out does not wait for ever; the registration is closed when it is answered.
    func testASignOutDoesNotWaitForASilentRegistration() async throws {
        let phone = Phone(signOutLimit: 0.05)
        let device = phone.start(container)
        let (asked, gate) = phone.stub.hold("POST", .told(7, "active", "hbs_a"))
        async let registered = isOvertaken {
            try await device.register(deviceToken: token, identity: .token("a"))
        }
        await asked.wait()
        let result = try await device.signOut()
        XCTAssertEqual(result, .deferred)
        await gate.open()
        let wasOvertaken = await registered
        XCTAssertTrue(wasOvertaken)
        XCTAssertEqual(phone.stub.lines, ["POST", "DELETE /7 hbs_a"])
        XCTAssertEqual(phone.secrets, [])
    }

    /// An app that has made two objects of the same: a sign-out by one ends what the other does.
    func testASignOutOfAnotherObjectCounts() async throws {
        let phone = Phone()
        let (one, other) = (phone.start(container), phone.start(container))
        let (asked, gate) = phone.stub.hold("POST", .told(7, "active", "hbs_a"))
        async let registered = isOvertaken {
            try await one.register(deviceToken: token, identity: .token("a"))
        }
        await asked.wait()
        try await other.signOut()
        await gate.open()
        let wasOvertaken = await registered
        XCTAssertTrue(wasOvertaken)
        XCTAssertEqual(phone.stub.lines, ["POST", "DELETE /7 hbs_a"])
        XCTAssertEqual(phone.secrets, [])
    }

    /// Two sign-ins at once: the later one wins, and the session of the first is closed.
    func testTheLaterOfTwoSignInsWins() async throws {
        let phone = Phone()
        let device = phone.start(container)
        let (asked, gate) = (Gate(), Gate())
        phone.stub.now { request in
            guard request.method == "POST" else { return .closed }
            if request.body["identity_token"] == "b" { return .told(8, "active", "hbs_b") }
            await asked.open()
            await gate.wait()
            return .told(7, "active", "hbs_a")
        }
        async let first = isOvertaken {
            try await device.register(deviceToken: token, identity: .token("a"))
        }
        await asked.wait()
        async let second = device.register(deviceToken: token, identity: .token("b"))
        try await eventually("the second is noted") { await device.generation == 2 }
        await gate.open()
        let (wasOvertaken, standing) = (await first, try await second)
        XCTAssertTrue(wasOvertaken)
        XCTAssertEqual(standing, .active)
        XCTAssertEqual(phone.stub.lines, ["POST", "DELETE /7 hbs_a", "POST"])
        XCTAssertEqual(phone.secrets, ["hbs_b"])
    }

    /// A refresh that is under way when the user signs out brings nothing back.
    func testASignOutDuringARefreshIsAnEnd() async throws {
        let phone = Phone { _ in .told(7, "active", "hbs_a") }
        let device = phone.start(container)
        try await device.register(deviceToken: token, identity: .token("a"))
        let (asked, gate) = phone.stub.hold("PATCH", .told(7, "active"))
        async let refreshed = isOvertaken { try await device.refresh(deviceToken: token) }
        await asked.wait()
        let result = try await device.signOut()
        await gate.open()
        let wasOvertaken = await refreshed
        XCTAssertEqual(result, .closed)
        XCTAssertTrue(wasOvertaken)
        XCTAssertEqual(phone.secrets, [])
    }

    /// Two refreshes are made one after another, the newer device token last.
    func testTheNewerDeviceTokenIsTheLastWord() async throws {
        let phone = Phone { _ in .told(7, "active", "hbs_a") }
        let device = phone.start(container)
        try await device.register(deviceToken: token, identity: .token("a"))
        let (asked, gate) = phone.stub.hold("PATCH", .told(7, "active"))
        async let first = device.refresh(deviceToken: token)
        await asked.wait()
        async let second = device.refresh(deviceToken: Data([1, 2, 3, 4]))
        try await eventually("both are asked for") { await device.deviceToken?.count == 4 }
        await gate.open()
        _ = try await (first, second)
        XCTAssertEqual(
            phone.stub.asked.map { $0.body["device_token"] }, ["0f744707bebc", "01020304"])
    }

    /// Who overtakes an attempt that is tried again ends the trying.
    func testASignOutEndsTheRetries() async throws {
        let gate = Gate()
        let phone = Phone(resting: gate) { _ in .problem(503, "unavailable") }
        let device = phone.start(container)
        async let registered = isOvertaken {
            try await device.register(deviceToken: token, identity: .token("a"))
        }
        await gate.wait()
        let result = try await device.signOut()
        let wasOvertaken = await registered
        XCTAssertTrue(wasOvertaken)
        XCTAssertEqual(result, .closed)
        XCTAssertEqual(phone.stub.lines, ["POST"])
        let isWaiting = try await device.isWaiting
        XCTAssertFalse(isWaiting)
    }
}
