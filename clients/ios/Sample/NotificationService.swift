import Foundation
import Handbell
import HandbellService

/// The principal class of the target "Notification Service Extension".
final class NotificationService: HandbellNotificationService {
    override var configuration: Configuration? {
        Configuration(
            server: URL(string: "https://push.example.com")!,
            app: "TEAM123456.com.sample.myapp",
            accessGroup: "TEAM123456.com.sample.myapp.shared"
        )
    }
}
