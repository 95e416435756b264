import XCTest

@testable import Handbell

final class PayloadTests: XCTestCase {
    /// Everything that a server may write is found where it writes it.
    func testEveryMemberIsRead() {
        let payload = Payload([
            "aps": ["alert": ["title": "Hello"], "url": "https://example.com/inside"],
            "handbell": "0123456789abcde",
            "url": "https://example.com/beside",
            "data": ["media-url": "https://example.com/picture.jpg"],
            "dataClass": "Employee",
            "entity": ["primaryKey": 42],
            "dataSynchro": true,
        ])
        XCTAssertEqual(payload.id, "0123456789abcde")
        XCTAssertEqual(payload.url?.path, "/beside")
        XCTAssertEqual(payload.imageURL?.lastPathComponent, "picture.jpg")
        XCTAssertEqual(payload.target, .record(dataClass: "Employee", primaryKey: "42"))
        XCTAssertTrue(payload.wantsSynchronisation)
    }

    /// What is missing or of another type is absent, and nothing fails.
    func testWhatIsStrangeIsAbsent() {
        let payload = Payload([
            "aps": "text", "handbell": 7, "data": [], "entity": ["primaryKey": 1],
        ])
        XCTAssertNil(payload.id)
        XCTAssertNil(payload.url)
        XCTAssertNil(payload.imageURL)
        XCTAssertNil(payload.target)
        XCTAssertFalse(payload.wantsSynchronisation)
    }

    /// An app that was made for the original finds `url` inside `aps`.
    func testAnAddressInsideApsIsTaken() {
        let payload = Payload(["aps": ["url": "https://example.com/inside"]])
        XCTAssertEqual(payload.url?.path, "/inside")
    }

    /// A data class alone is a target, too.
    func testADataClassIsATarget() {
        XCTAssertEqual(Payload(["dataClass": "Employee"]).target, .dataClass("Employee"))
    }

    /// The number on the icon, and whether something is shown, are told.
    func testABadgeAndASilentPushAreTold() {
        let payloads: [(String, Payload, Int?, Bool)] = [
            ("shown", Payload(["aps": ["alert": "Hello", "badge": 3]]), 3, false),
            ("cleared", Payload(["aps": ["alert": ["title": "Hello"], "badge": 0]]), 0, false),
            ("silent", Payload(["aps": ["content-available": 1]]), nil, true),
            (
                "both", Payload(["aps": ["content-available": 1, "alert": "Hello"]]), nil, false
            ),
            ("neither", Payload([:]), nil, false),
        ]
        for (name, payload, badge, isSilent) in payloads {
            XCTAssertEqual(payload.badge, badge, name)
            XCTAssertEqual(payload.isSilent, isSilent, name)
        }
    }

    /// A tap is told from a button and from a dismissal, which opens nothing.
    func testAReactionIsTold() {
        let reactions: [(String, Reaction, Bool)] = [
            ("com.apple.UNNotificationDefaultActionIdentifier", .tap, true),
            ("com.apple.UNNotificationDismissActionIdentifier", .dismissal, false),
            ("reply", .action("reply"), true), ("", .action(""), true),
        ]
        for (identifier, reaction, hasOpened) in reactions {
            XCTAssertEqual(Reaction(identifier), reaction)
            XCTAssertEqual(reaction.hasOpened, hasOpened)
        }
    }

    func testAUniversalLinkNamesWhatToOpen() throws {
        let base = "https://push.example.com/mobileapp/$/"
        let links: [String: Payload.Target?] = [
            base + "show?dataClass=Employee": .dataClass("Employee"),
            base + "TEAM123456.com.sample.myapp/show?dataClass=Employee&entity.primaryKey=42":
                .record(dataClass: "Employee", primaryKey: "42"),
            base + "show": nil,
            base + "other?dataClass=Employee": nil,
            "https://push.example.com/show?dataClass=Employee": nil,
        ]
        for (link, target) in links {
            XCTAssertEqual(Payload.Target(link: try XCTUnwrap(URL(string: link))), target, link)
        }
    }
}
