import Foundation
import Handbell
import UserNotifications

/// A notification service extension that attaches the picture of `image_url` and reports that the
/// notification was displayed. Subclass it in the extension and name the configuration.
open class HandbellNotificationService: UNNotificationServiceExtension {
    /// The configuration of the app, with the access group that it shares with this extension.
    open var configuration: Configuration? { nil }

    private var deliver: ((UNNotificationContent) -> Void)?
    private var content: UNMutableNotificationContent?
    private var work: Task<Void, Never>?

    override open func didReceive(
        _ request: UNNotificationRequest,
        withContentHandler contentHandler: @escaping (UNNotificationContent) -> Void
    ) {
        guard let content = request.content.mutableCopy() as? UNMutableNotificationContent else {
            return contentHandler(request.content)
        }
        self.content = content
        deliver = contentHandler
        let payload = Payload(request.content.userInfo)
        work = Task { [configuration] in
            if let address = payload.imageURL, let picture = await Self.picture(from: address) {
                content.attachments = [picture]
            }
            if let configuration {
                await HandbellDevice(configuration).report(.displayed, of: payload)
            }
            finish()
        }
    }

    /// iOS gives about thirty seconds; what is there by then is shown.
    override open func serviceExtensionTimeWillExpire() {
        work?.cancel()
        finish()
    }

    private func finish() {
        guard let content, let deliver else { return }
        self.deliver = nil
        deliver(content)
    }

    private static func picture(from address: URL) async -> UNNotificationAttachment? {
        guard address.scheme == "https",
            let (file, response) = try? await URLSession.shared.download(from: address),
            (response as? HTTPURLResponse)?.statusCode == 200
        else { return nil }
        // The attachment's type is told by the extension of its name.
        let name = response.suggestedFilename ?? address.lastPathComponent
        let named = file.deletingLastPathComponent().appendingPathComponent("\(UUID())-\(name)")
        guard (try? FileManager.default.moveItem(at: file, to: named)) != nil else { return nil }
        return try? UNNotificationAttachment(identifier: "picture", url: named)
    }
}
