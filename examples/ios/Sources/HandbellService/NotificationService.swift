import Foundation
import Handbell
import UserNotifications

/// A notification service extension that attaches the picture of `image_url` and reports that the
/// notification was displayed. Subclass it in the extension and name the configuration.
open class HandbellNotificationService: UNNotificationServiceExtension {
    /// The configuration of the app, with the access group that it shares with this extension.
    open var configuration: Configuration? { nil }

    private let lock = NSLock()
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
            // At the same time: what is shown waits for the slower of the two, not for both.
            async let reported: Void = Self.report(payload, with: configuration)
            var picture: UNNotificationAttachment?
            if let address = payload.imageURL {
                picture = await Self.picture(from: address)
            }
            await reported
            finish(with: picture)
        }
    }

    /// iOS gives about thirty seconds; what is there by then is shown.
    override open func serviceExtensionTimeWillExpire() {
        work?.cancel()
        finish(with: nil)
    }

    /// Shows the notification, once: the work and iOS may both be at the end, on two threads.
    private func finish(with picture: UNNotificationAttachment?) {
        lock.lock()
        let first = deliver
        deliver = nil
        lock.unlock()
        guard let content, let first else { return }
        if let picture {
            content.attachments = [picture]
        }
        first(content)
    }

    private static func report(_ payload: Payload, with configuration: Configuration?) async {
        guard let configuration else { return }
        await HandbellDevice(configuration).report(.displayed, of: payload)
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
