import UIKit

/// For an app of UIKit with scenes: universal links come to the scene, and not to the app delegate.
final class SceneDelegate: UIResponder, UIWindowSceneDelegate {
    var window: UIWindow?

    /// The link that has started the app.
    func scene(
        _: UIScene, willConnectTo _: UISceneSession, options: UIScene.ConnectionOptions
    ) {
        for activity in options.userActivities { Push.shared.follow(activity) }
    }

    /// A link while the app runs.
    func scene(_: UIScene, continue activity: NSUserActivity) {
        Push.shared.follow(activity)
    }

    /// Whoever looks at the app has seen what the number was about.
    func sceneDidBecomeActive(_: UIScene) {
        Push.shared.setBadge(0)
    }
}
