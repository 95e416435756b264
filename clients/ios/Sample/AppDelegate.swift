import Handbell
import UIKit
import UserNotifications

/// What iOS tells the app alone, whether its windows are of SwiftUI or of UIKit.
///
/// An app of SwiftUI has it by `SampleApp`; one of UIKit marks it with `@main`.
final class AppDelegate: UIResponder, UIApplicationDelegate {
    private let notifications = Notifications()

    func application(
        _: UIApplication,
        didFinishLaunchingWithOptions _: [UIApplication.LaunchOptionsKey: Any]?
    ) -> Bool {
        // Before this returns: else the tap that has started the app is lost.
        UNUserNotificationCenter.current().delegate = notifications
        Push.shared.start()
        return true
    }

    func application(
        _: UIApplication, didRegisterForRemoteNotificationsWithDeviceToken token: Data
    ) {
        Task { await Push.shared.received(token) }
    }

    func application(
        _: UIApplication, didFailToRegisterForRemoteNotificationsWithError error: any Error
    ) {
        // Without the capability "Push Notifications", or without a network at the first start.
        NSLog("No device token: %@", error.localizedDescription)
    }

    /// A silent push, with the background mode "Remote notifications".
    func application(
        _: UIApplication,
        didReceiveRemoteNotification userInfo: [AnyHashable: Any],
        fetchCompletionHandler finish: @escaping (UIBackgroundFetchResult) -> Void
    ) {
        let payload = Payload(userInfo)
        Task { finish(await Push.shared.woken(by: payload)) }
    }

    /// A universal link, where the app has no scenes.
    func application(
        _: UIApplication,
        continue activity: NSUserActivity,
        restorationHandler _: @escaping ([any UIUserActivityRestoring]?) -> Void
    ) -> Bool {
        Push.shared.follow(activity)
    }
}

/// Hears of notifications. iOS calls it on any thread.
///
/// With completion handlers: of the asynchronous forms UIKit may hear on another thread than the main
/// one that they have ended, and ends the app.
private final class Notifications: NSObject, UNUserNotificationCenterDelegate {
    /// Shows a notification also while the app is in front.
    func userNotificationCenter(
        _: UNUserNotificationCenter,
        willPresent _: UNNotification,
        withCompletionHandler present: @escaping (UNNotificationPresentationOptions) -> Void
    ) {
        present([.banner, .list, .sound, .badge])
    }

    /// A tap, a button or a dismissal.
    func userNotificationCenter(
        _: UNUserNotificationCenter,
        didReceive response: UNNotificationResponse,
        withCompletionHandler finish: @escaping () -> Void
    ) {
        let payload = Payload(response.notification.request.content.userInfo)
        let reaction = Reaction(response.actionIdentifier)
        let ending = Ending(finish)
        // The user does not wait for the network; iOS lets the app run until it has finished.
        Task { @MainActor in
            await Push.shared.reacted(reaction, to: payload)
            ending.tell()
        }
    }
}

/// Takes a handler of iOS to the main thread, where it is called.
private final class Ending: @unchecked Sendable {
    private let finish: () -> Void

    init(_ finish: @escaping () -> Void) { self.finish = finish }

    @MainActor func tell() { finish() }
}
