import XCTest

@testable import Handbell

/// Signing in, one after another: what is kept, and what the server is told.
final class SignInTests: XCTestCase {
    private let container = MemoryStorage()

    private func registered(_ id: Int, _ status: String, _ secret: String) async throws -> (
        Phone, HandbellDevice
    ) {
        let phone = Phone { _ in .told(id, status, secret) }
        let device = phone.start(container)
        try await device.register(deviceToken: token, identity: .token("jwt"))
        return (phone, device)
    }

    /// A first registration speaks for nobody and keeps the secret.
    func testTheFirstRegistrationKeepsItsSecret() async throws {
        let (phone, device) = try await registered(7, "active", "hbs_a")
        XCTAssertEqual(phone.stub.lines, ["POST"])
        XCTAssertEqual(phone.stub.asked.first?.body["identity_token"], "jwt")
        XCTAssertEqual(phone.stub.asked.first?.body["device_token"], "0f744707bebc")
        XCTAssertEqual(phone.secrets, ["hbs_a"])
        let isRegistered = try await device.isRegistered
        XCTAssertTrue(isRegistered)
    }

    /// A second sign-in by mail speaks with the active session's secret and leaves it in place; it
    /// goes when the new session is proven, and the server is told.
    func testAnActiveSessionStaysUntilTheNextIsProven() async throws {
        let (phone, device) = try await registered(7, "active", "hbs_a")
        phone.stub.now { _ in .told(8, "pending", "hbs_b") }
        let standing = try await device.register(deviceToken: token, identity: .mail("b@x.example"))
        XCTAssertEqual(standing, .pending)
        XCTAssertEqual(phone.stub.lines, ["POST hbs_a"])
        XCTAssertEqual(Set(phone.secrets), ["hbs_a", "hbs_b"])

        phone.stub.now { $0.path == "/8" ? .told(8, "pending") : .told(7, "active") }
        let waiting = try await device.refresh(deviceToken: token)
        XCTAssertEqual(waiting, .pending)
        XCTAssertEqual(phone.stub.lines, ["PATCH /8 hbs_b", "PATCH /7 hbs_a"])

        phone.stub.now { $0.method == "DELETE" ? .void : .told(8, "active") }
        let proven = try await device.refresh(deviceToken: token)
        XCTAssertEqual(proven, .active)
        XCTAssertEqual(phone.stub.lines, ["PATCH /8 hbs_b", "DELETE /7 hbs_a"])
        XCTAssertEqual(phone.secrets, ["hbs_b"])
        XCTAssertEqual(phone.record?.leaving, [])
    }

    /// A claim that was never proven ends; whose session stands goes on.
    func testAClaimThatIsOverLeavesTheSession() async throws {
        let (phone, device) = try await registered(7, "active", "hbs_a")
        phone.stub.now { _ in .told(8, "pending", "hbs_b") }
        try await device.register(deviceToken: token, identity: .mail("b@x.example"))
        phone.stub.now { $0.path == "/8" ? .void : .told(7, "active") }
        let standing = try await device.refresh(deviceToken: token)
        XCTAssertEqual(standing, .active)
        XCTAssertEqual(phone.secrets, ["hbs_a"])
    }

    /// A mistyped address must not be proven later by whoever lives there: the claim is closed when
    /// the next one is made.
    func testAClaimIsClosedWhenAnotherTakesItsPlace() async throws {
        let (phone, device) = try await registered(7, "pending", "hbs_typo")
        phone.stub.now { $0.method == "POST" ? .told(8, "pending", "hbs_b") : .closed }
        try await device.register(deviceToken: token, identity: .mail("b@x.example"))
        XCTAssertEqual(phone.stub.lines, ["POST hbs_typo", "DELETE /7 hbs_typo"])
        XCTAssertEqual(phone.secrets, ["hbs_b"])
    }

    /// A sign-in that is proven at once ends the session before it, and its claim.
    func testAProvenSignInEndsTheOthers() async throws {
        let (phone, device) = try await registered(7, "active", "hbs_a")
        phone.stub.now { _ in .told(8, "pending", "hbs_b") }
        try await device.register(deviceToken: token, identity: .mail("b@x.example"))
        phone.stub.now { $0.method == "POST" ? .told(9, "active", "hbs_c") : .closed }
        try await device.register(deviceToken: token, identity: .token("jwt"))
        XCTAssertEqual(
            phone.stub.lines, ["POST hbs_b", "DELETE /8 hbs_b", "DELETE /7 hbs_a"])
        XCTAssertEqual(phone.secrets, ["hbs_c"])
    }

    /// The same session under a new secret: the former secret is void, and nothing is closed.
    func testTheSamePersonAgainClosesNothing() async throws {
        let (phone, device) = try await registered(7, "active", "hbs_a")
        phone.stub.now { _ in .told(7, "active", "hbs_new") }
        try await device.register(deviceToken: token, identity: .token("jwt"))
        XCTAssertEqual(phone.stub.lines, ["POST hbs_a"])
        XCTAssertEqual(phone.secrets, ["hbs_new"])
    }

    /// Where the server tells no secret the device has it already, in whatever standing.
    func testANullSecretKeepsTheOneThatSpoke() async throws {
        for status in ["pending", "active", "quarantined", "closed", "paused"] {
            let (phone, device) = try await registered(7, status, "hbs_a")
            phone.stub.now { _ in .told(7, status) }
            try await device.register(deviceToken: token, identity: .mail("a@x.example"))
            XCTAssertEqual(phone.secrets, ["hbs_a"], status)
        }
    }

    /// A secret is told once, so it is kept whatever else the answer says.
    func testAStrangeStatusKeepsTheSecret() async throws {
        let strange = [#""paused""#, #""ACTIVE""#, #""""#, "null", "3", "{}", "[true]"]
        for status in strange {
            let phone = Phone { _ in
                .json(201, #"{"id": 7, "status": \#(status), "secret": "hbs_a", "more": [1]}"#)
            }
            let device = phone.start(MemoryStorage())
            let standing = try await device.register(deviceToken: token, identity: .token("jwt"))
            XCTAssertEqual(standing, .unknown, status)
            XCTAssertEqual(phone.secrets, ["hbs_a"], status)
            phone.stub.now { _ in .json(200, #"{"id": 7, "status": \#(status)}"#) }
            let refreshed = try await device.refresh(deviceToken: token)
            XCTAssertEqual(refreshed, .unknown, status)
            XCTAssertEqual(phone.secrets, ["hbs_a"], status)
        }
    }

    /// The back end's session takes the place of the one before once the server knows it.
    func testASessionOfTheBackEndIsAdopted() async throws {
        let (phone, device) = try await registered(7, "active", "hbs_a")
        phone.stub.now { $0.method == "DELETE" ? .closed : .told(8, "active") }
        let standing = try await device.adopt(session: 8, secret: "hbs_key")
        XCTAssertEqual(standing, .active)
        XCTAssertEqual(phone.stub.lines, ["PATCH /8 hbs_key", "DELETE /7 hbs_a"])
        XCTAssertEqual(phone.secrets, ["hbs_key"])
    }

    /// What is not a session is refused, and the one before stays.
    func testWhatIsNoSessionIsNotAdopted() async throws {
        let (phone, device) = try await registered(7, "active", "hbs_a")
        phone.stub.now { $0.path == "/8" ? .void : .told(7, "active") }
        await assertThrows(HandbellError.notASession) {
            try await device.adopt(session: 8, secret: "hbs_wrong")
        }
        for (id, secret) in [
            (0, "hbs_a"), (8, ""), (8, "hbs a"), (8, "hbs_a\r\nX: y"), (8, "hbs_ä"),
        ] {
            await assertThrows(HandbellError.notASession) {
                try await device.adopt(session: id, secret: secret)
            }
        }
        XCTAssertEqual(phone.secrets, ["hbs_a"])
    }

    /// Without a network it is adopted at the next refresh, and what the back end told is not lost.
    func testAnAdoptionWithoutANetworkIsMadeGood() async throws {
        let phone = Phone()
        let device = phone.start(container)
        let failed = try? await device.adopt(session: 8, secret: "hbs_key")
        XCTAssertNil(failed)
        XCTAssertEqual(phone.secrets, ["hbs_key"])
        phone.stub.now { _ in .told(8, "active") }
        let standing = try await phone.start(container).refresh(deviceToken: token)
        XCTAssertEqual(standing, .active)
    }
}
