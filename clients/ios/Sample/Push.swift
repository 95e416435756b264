import Handbell
import UIKit
import UserNotifications

/// Shared by the app and its extension.
let configuration = Configuration(
    server: URL(string: "https://push.example.com")!,
    app: "TEAM123456.com.sample.myapp",
    accessGroup: "TEAM123456.com.sample.myapp.shared"
)

/// What the app does with notifications. One object for its life, whatever its windows are made of.
@MainActor
final class Push {
    static let shared = Push()

    /// With a back end: `identity` asks it for a token whenever one is needed, also at a later start.
    /// An app whose users register by mail leaves it out.
    let handbell = HandbellDevice(configuration, identity: { try await pushIdentity() })

    /// Keeps the server up to date when the app comes to the front, or the time zone or the language
    /// changes.
    private var following: Following?

    /// Call it at each start: a token may change, and the server keeps those whose apps still live.
    func start() {
        following = handbell.follow()
        UIApplication.shared.registerForRemoteNotifications()
    }

    /// iOS has told the device token of this start.
    func received(_ deviceToken: Data) async {
        do {
            // Registers who waits, too.
            try await handbell.refresh(deviceToken: deviceToken)
        } catch {
            // Without a network, or before the first unlock: made good when the app comes to the front.
            NSLog("Not refreshed: %@", error.localizedDescription)
        }
    }

    /// Call it from the app's sign-in: with `.fresh` where there is a back end, else with `.mail`.
    func userSignedIn(_ identity: Identity) async throws {
        // A refusal stops nothing: the notifications come, and iOS does not show them. With
        // `.provisional` iOS does not ask, and shows them quietly.
        let options: UNAuthorizationOptions = [.alert, .badge, .sound]
        _ = try? await UNUserNotificationCenter.current().requestAuthorization(options: options)
        // A sign-out without a network has ended it.
        UIApplication.shared.registerForRemoteNotifications()
        try await handbell.signIn(identity)
    }

    /// Call it where the app's back end has registered the device with its own API key.
    func backEndRegistered(session id: Int, secret: String) async throws {
        try await handbell.adopt(session: id, secret: secret)
    }

    /// Call it from the app's sign-out, and let the next user in only when it has returned.
    func userSignsOut() async throws {
        if try await handbell.signOut() == .deferred {
            // The server could not be told yet: nothing shall be shown meanwhile.
            UIApplication.shared.unregisterForRemoteNotifications()
        }
        // What the former user was shown is not for the next one.
        UNUserNotificationCenter.current().removeAllDeliveredNotifications()
        setBadge(0)
    }

    /// Sets the number on the app's icon; zero takes it away.
    func setBadge(_ number: Int) {
        if #available(iOS 16, *) {
            UNUserNotificationCenter.current().setBadgeCount(number)
        } else {
            UIApplication.shared.applicationIconBadgeNumber = number
        }
    }

    /// The user has done something with a notification.
    func reacted(_ reaction: Reaction, to payload: Payload) async {
        switch reaction {
        case .tap: follow(payload)
        case .action(let name): NSLog("The button %@ was tapped", name)
        case .dismissal: break
        }
        if reaction.hasOpened {
            await handbell.report(.opened, of: payload)
        }
    }

    /// A silent push: the app has about thirty seconds to load what is new.
    func woken(by payload: Payload) async -> UIBackgroundFetchResult {
        guard payload.isSilent || payload.wantsSynchronisation else { return .noData }
        // Put the app's own synchronisation here.
        return .newData
    }

    /// A universal link was tapped, in a mail or on a page. Says whether it is the app's own.
    @discardableResult
    func follow(_ activity: NSUserActivity) -> Bool {
        guard activity.activityType == NSUserActivityTypeBrowsingWeb,
            let target = activity.webpageURL.flatMap(Payload.Target.init(link:))
        else { return false }
        show(target, synchronising: false)
        return true
    }

    private func follow(_ payload: Payload) {
        if let target = payload.target {
            show(target, synchronising: payload.wantsSynchronisation)
        } else if let target = payload.url.flatMap(Payload.Target.init(link:)) {
            // iOS opens an app's own universal link in the browser when the app itself asks.
            show(target, synchronising: payload.wantsSynchronisation)
        } else if let url = payload.url {
            UIApplication.shared.open(url)
        }
    }

    /// Shows what a tapped notification is about. Put the app's own navigation here.
    private func show(_ target: Payload.Target, synchronising: Bool) {
        switch target {
        case .dataClass(let name):
            NSLog("Show the list of %@ (synchronise first: %d)", name, synchronising ? 1 : 0)
        case .record(let name, let key):
            NSLog("Show %@ %@ (synchronise first: %d)", name, key, synchronising ? 1 : 0)
        }
    }
}

/// Asks the app's own back end for a token for who is signed in; nil when nobody is. Put the app's
/// own way of asking in its place: `examples/backend` answers to this one.
private func pushIdentity() async throws -> String? {
    struct Answer: Decodable {
        let identityToken: String
    }
    var request = URLRequest(url: URL(string: "https://shop.example.com/push-identity")!)
    request.httpMethod = "POST"
    let (data, response) = try await URLSession.shared.data(for: request)
    if (response as? HTTPURLResponse)?.statusCode == 401 { return nil }
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(Answer.self, from: data).identityToken
}
