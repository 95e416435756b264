import Foundation

/// Where the send server is, and which app this is.
public struct Configuration: Sendable {
    /// Where a device token lives.
    public enum Environment: String, Codable, Sendable {
        case production
        case development
        /// A virtual phone of `handbell serve --twin`.
        case twin
    }

    /// The server's public address, such as `https://push.example.com`.
    public let server: URL
    /// The app id: team id, dot, bundle id.
    public let app: String
    /// The keychain access group that the app shares with its extension.
    public let accessGroup: String?
    /// Where this build's device tokens live; nil, the usual, finds it out from the build.
    public let environment: Environment?

    public init(
        server: URL, app: String, accessGroup: String? = nil, environment: Environment? = nil
    ) {
        self.server = server
        self.app = app
        self.accessGroup = accessGroup
        self.environment = environment
    }
}

/// How the app says whose device this is.
public enum Identity: Sendable, Equatable {
    /// The user's mail address. The server mails a link to it, and until the link is opened nothing
    /// is sent to this device.
    case mail(String)
    /// A token that the app's own back end has signed for the signed-in user. It serves once, for
    /// a few minutes, so a sign-in with it that has to wait does not survive a restart of the app.
    case token(String)
    /// A token that the ``IdentitySource`` brings when it is needed, anew for each attempt. Such a
    /// sign-in may wait as long as it has to.
    case fresh
}

/// Brings a token that the app's own back end has just signed for the signed-in user; nil when
/// nobody is signed in. It must not wait for the ``HandbellDevice`` that waits for it.
public typealias IdentitySource = @Sendable () async throws -> String?

/// What the server says of this device.
public enum Standing: String, Codable, Sendable {
    /// The link that was mailed is not opened yet.
    case pending
    /// Notifications arrive.
    case active
    /// Apple knows the device token in neither environment; the next start brings a new one.
    case quarantined
    /// The device was thought gone, or logged out.
    case closed
    /// A word of a newer server. The session is kept.
    case unknown

    public init(from decoder: any Decoder) throws {
        let word = try decoder.singleValueContainer().decode(String.self)
        self = Standing(rawValue: word) ?? .unknown
    }

    /// Whether the server knows for certain that the device is this person's.
    var isProven: Bool { self == .active || self == .quarantined }
}

/// What ``HandbellDevice/signOut()`` came to.
public enum SignOut: Sendable {
    /// The server has ended the session: nothing more is sent to this device for this user.
    case closed
    /// The server could not be told yet. The session is void on this device, and the server is told
    /// at the next refresh, registration or sign-out; until then it may still send.
    case deferred
}

/// What happened to a notification on this device.
public enum Receipt: String, Codable, Sendable {
    case displayed
    case opened
}

/// What the client cannot do, and what to do about it.
public enum HandbellError: Error, Equatable, LocalizedError {
    /// Where the session is kept can't be read or written now: a keychain before the first unlock,
    /// say. It says nothing about whether there is a session.
    case storage(String)
    /// `Identity.fresh` was used, and there is nobody who brings a token.
    case noIdentity
    /// What a back end handed over is not a session.
    case notASession

    public var errorDescription: String? {
        switch self {
        case .storage(let reason):
            "The session cannot be read or written now: \(reason). Try again later."
        case .noIdentity:
            "Nobody is signed in, or HandbellDevice was made without an identity source."
        case .notASession:
            "A session is the id and the secret that the server answered the back end with."
        }
    }
}
