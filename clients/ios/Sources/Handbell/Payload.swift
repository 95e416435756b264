import Foundation

/// What a notification carries beside the text that iOS shows.
public struct Payload: Sendable, Equatable {
    /// What a tap is to open in the app's data.
    public enum Target: Sendable, Equatable {
        /// All records of a data class.
        case dataClass(String)
        /// One record, by its primary key.
        case record(dataClass: String, primaryKey: String)
    }

    /// The notification's id on the server, for receipts.
    public let id: String?
    /// What a tap is to open: a universal link, or any other address.
    public let url: URL?
    /// The picture that the service extension attaches.
    public let imageURL: URL?
    /// The data class or record that a tap is to open.
    public let target: Target?
    /// Whether the app is asked to synchronise its data before it shows the target.
    public let wantsSynchronisation: Bool
    /// The number on the app's icon that comes with it; nil leaves the number as it is.
    public let badge: Int?
    /// Whether it only wakes the app, and shows nothing.
    public let isSilent: Bool

    /// Reads the `userInfo` of a notification. What is missing or of another type counts as absent.
    public init(_ userInfo: [AnyHashable: Any]) {
        let aps = userInfo["aps"] as? [String: Any]
        let data = userInfo["data"] as? [String: Any]
        id = userInfo["handbell"] as? String
        url = Payload.address(userInfo["url"] ?? aps?["url"])
        imageURL = Payload.address(data?["media-url"])
        target = Payload.target(userInfo)
        wantsSynchronisation = userInfo["dataSynchro"] as? Bool ?? false
        badge = aps?["badge"] as? Int
        isSilent = aps?["content-available"] as? Int == 1 && aps?["alert"] == nil
    }

    private static func address(_ value: Any?) -> URL? {
        (value as? String).flatMap(URL.init(string:))
    }

    private static func target(_ userInfo: [AnyHashable: Any]) -> Target? {
        guard let dataClass = userInfo["dataClass"] as? String else { return nil }
        let entity = userInfo["entity"] as? [String: Any]
        switch entity?["primaryKey"] {
        case let key as String: return .record(dataClass: dataClass, primaryKey: key)
        case let key as Int: return .record(dataClass: dataClass, primaryKey: String(key))
        default: return .dataClass(dataClass)
        }
    }
}

/// What the user did with a notification.
public enum Reaction: Sendable, Equatable {
    /// Tapped it: the app shows what it is about.
    case tap
    /// Chose one of the buttons of its category, the app's own, by its identifier.
    case action(String)
    /// Swiped it away. iOS tells it where the category asks for it.
    case dismissal

    /// Reads the `actionIdentifier` of a `UNNotificationResponse`.
    public init(_ actionIdentifier: String) {
        switch actionIdentifier {
        case "com.apple.UNNotificationDefaultActionIdentifier": self = .tap
        case "com.apple.UNNotificationDismissActionIdentifier": self = .dismissal
        default: self = .action(actionIdentifier)
        }
    }

    /// Whether it is to be reported as `opened`.
    public var hasOpened: Bool { self != .dismissal }
}

extension Payload.Target {
    /// Reads a universal link of the server, `/mobileapp/$/[app id/]show?dataClass=…` with
    /// `&entity.primaryKey=…` for one record. Returns nil for any other address.
    public init?(link: URL) {
        guard let parts = URLComponents(url: link, resolvingAgainstBaseURL: false),
            parts.path.hasPrefix("/mobileapp/$/"),
            link.lastPathComponent == "show"
        else { return nil }
        func value(_ name: String) -> String? {
            parts.queryItems?.first { $0.name == name }?.value
        }
        guard let dataClass = value("dataClass"), !dataClass.isEmpty else { return nil }
        if let key = value("entity.primaryKey"), !key.isEmpty {
            self = .record(dataClass: dataClass, primaryKey: key)
        } else {
            self = .dataClass(dataClass)
        }
    }
}
