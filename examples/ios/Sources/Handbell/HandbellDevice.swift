import Foundation

/// Where the send server is, and which app this is.
public struct Configuration: Sendable {
    /// The server's public address, such as `https://push.example.com`.
    public let server: URL
    /// The app id: team id, dot, bundle id.
    public let app: String
    /// The keychain access group that the app shares with its extension.
    public let accessGroup: String?

    public init(server: URL, app: String, accessGroup: String? = nil) {
        self.server = server
        self.app = app
        self.accessGroup = accessGroup
    }
}

/// How the app says whose device this is.
public enum Identity: Sendable {
    /// The user's mail address. The server mails a link to it, and until the link is opened nothing
    /// is sent to this device.
    case mail(String)
    /// A token that the app's own back end has signed for the signed-in user.
    case token(String)
}

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
}

/// What happened to a notification on this device.
public enum Receipt: String, Codable, Sendable {
    case displayed
    case opened
}

/// The device's side of a Handbell server.
///
/// One object for the life of the app. Nothing that identifies the user is kept but the session's
/// secret, which lies in the keychain.
public actor HandbellDevice {
    private let configuration: Configuration
    private let vault: Vault
    private let wire: Wire

    public init(_ configuration: Configuration, transport: URLSession = .shared) {
        self.configuration = configuration
        vault = Vault(app: configuration.app, accessGroup: configuration.accessGroup)
        wire = Wire(server: configuration.server, app: configuration.app, transport: transport)
    }

    /// Whether this device has a session, proven or not.
    public var isRegistered: Bool {
        vault.read() != nil
    }

    /// Tells the server who uses this device and where it is reached.
    ///
    /// Call it when the user has signed in. The device token comes from
    /// `application(_:didRegisterForRemoteNotificationsWithDeviceToken:)`.
    @discardableResult
    public func register(deviceToken: Data, identity: Identity) async throws -> Standing {
        var device = Device.current(token: deviceToken)
        switch identity {
        case .mail(let mail): device.mail = mail
        case .token(let token): device.identityToken = token
        }
        let answer = try await wire.register(device)
        try vault.write(Session(id: answer.id, secret: answer.secret))
        return answer.status
    }

    /// Refreshes the session. Call it at each start, with the device token of this start.
    ///
    /// It costs the server little, and tells it that the app is still there, also when the device
    /// token, the language or the time zone has changed. Returns nil where this device has no session,
    /// or none any more: whoever is signed in has to be registered anew.
    @discardableResult
    public func refresh(deviceToken: Data) async throws -> Standing? {
        guard let session = vault.read() else { return nil }
        do {
            return try await wire.refresh(session, with: Device.current(token: deviceToken)).status
        } catch let problem as Problem where problem.isGone {
            vault.erase()
            return nil
        }
    }

    /// Ends the session: nothing more is sent to this device for this user.
    ///
    /// Wait for it before the next user signs in. Without a network it throws and the session stays,
    /// so that it can be tried again.
    public func signOut() async throws {
        guard let session = vault.read() else { return }
        do {
            try await wire.close(session)
        } catch let problem as Problem where problem.isGone {
            // The server has ended it already.
        }
        vault.erase()
    }

    /// Reports what became of a notification. A receipt that is lost is no loss for the user, so
    /// this never throws, and gives up after five seconds without an answer.
    public func report(_ receipt: Receipt, of notification: Payload) async {
        guard let session = vault.read(), let id = notification.id else { return }
        try? await wire.report(receipt, of: id, from: session)
    }
}
