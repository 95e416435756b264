import Handbell
import UIKit
import UserNotifications

/// Shared by the app and its extension.
let configuration = Configuration(
    server: URL(string: "https://push.example.com")!,
    app: "TEAM123456.com.sample.myapp",
    accessGroup: "TEAM123456.com.sample.myapp.shared"
)

@main
final class AppDelegate: UIResponder, UIApplicationDelegate {
    let handbell = HandbellDevice(configuration)

    /// The device token of this start, once iOS has told it.
    private(set) var deviceToken: Data?
    /// Who signed in before the device token was there.
    private var waiting: Identity?

    func application(
        _ application: UIApplication,
        didFinishLaunchingWithOptions _: [UIApplication.LaunchOptionsKey: Any]?
    ) -> Bool {
        UNUserNotificationCenter.current().delegate = self
        // At each start: a token may change, and the server keeps those whose apps still live.
        application.registerForRemoteNotifications()
        return true
    }

    func application(
        _: UIApplication, didRegisterForRemoteNotificationsWithDeviceToken token: Data
    ) {
        deviceToken = token
        Task {
            do {
                if let identity = waiting {
                    try await handbell.register(deviceToken: token, identity: identity)
                    waiting = nil
                } else {
                    try await handbell.refresh(deviceToken: token)
                }
            } catch {
                // Without a network: a refresh is tried again at the next start, and a sign-in by
                // calling `userSignedIn` once more.
                NSLog("Not registered: %@", error.localizedDescription)
            }
        }
    }

    func application(
        _: UIApplication, didFailToRegisterForRemoteNotificationsWithError error: Error
    ) {
        // Without the capability "Push Notifications", or without a network at the first start.
        NSLog("No device token: %@", error.localizedDescription)
    }

    /// A universal link was tapped, in a mail or on a page. An app with scenes gets it in
    /// `scene(_:continue:)`.
    func application(
        _: UIApplication,
        continue activity: NSUserActivity,
        restorationHandler _: @escaping ([UIUserActivityRestoring]?) -> Void
    ) -> Bool {
        guard activity.activityType == NSUserActivityTypeBrowsingWeb,
            let target = activity.webpageURL.flatMap(Payload.Target.init(link:))
        else { return false }
        show(target, synchronising: false)
        return true
    }

    /// Call it from the app's sign-in, with a mail address or with a token of the back end.
    func userSignedIn(_ identity: Identity) async throws {
        let options: UNAuthorizationOptions = [.alert, .badge, .sound]
        _ = try await UNUserNotificationCenter.current().requestAuthorization(options: options)
        guard let deviceToken else {
            waiting = identity
            return
        }
        try await handbell.register(deviceToken: deviceToken, identity: identity)
    }

    /// Call it from the app's sign-out, and let the next user in only when it has returned.
    func userSignsOut() async throws {
        waiting = nil
        try await handbell.signOut()
        // What the former user was shown is not for the next one.
        UNUserNotificationCenter.current().removeAllDeliveredNotifications()
        setBadge(0)
    }

    func setBadge(_ number: Int) {
        if #available(iOS 16, *) {
            UNUserNotificationCenter.current().setBadgeCount(number)
        } else {
            UIApplication.shared.applicationIconBadgeNumber = number
        }
    }

    /// Shows what a tapped notification is about. Put the app's own navigation here.
    func show(_ target: Payload.Target, synchronising: Bool) {
        switch target {
        case .dataClass(let name):
            NSLog("Show the list of %@ (synchronise first: %d)", name, synchronising)
        case .record(let name, let key):
            NSLog("Show %@ %@ (synchronise first: %d)", name, key, synchronising)
        }
    }
}

// With completion handlers: of the asynchronous forms UIKit may hear on another thread than the main
// one that they have ended, and ends the app.
extension AppDelegate: UNUserNotificationCenterDelegate {
    /// Shows a notification also while the app is in front.
    func userNotificationCenter(
        _: UNUserNotificationCenter,
        willPresent _: UNNotification,
        withCompletionHandler present: @escaping (UNNotificationPresentationOptions) -> Void
    ) {
        present([.banner, .list, .sound, .badge])
    }

    /// A tap: opens what the notification names, and reports it.
    func userNotificationCenter(
        _: UNUserNotificationCenter,
        didReceive response: UNNotificationResponse,
        withCompletionHandler finish: @escaping () -> Void
    ) {
        let payload = Payload(response.notification.request.content.userInfo)
        follow(payload)
        // The user does not wait for the network; iOS lets the app run until it has finished.
        Task {
            await handbell.report(.opened, of: payload)
            finish()
        }
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
}
