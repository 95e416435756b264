#if canImport(UserNotifications)
    import Foundation
    import Handbell
    import UserNotifications

    /// A notification service extension that attaches the picture of `image_url` and reports that
    /// the notification was displayed. Subclass it in the extension and name the configuration.
    open class HandbellNotificationService: UNNotificationServiceExtension {
        /// The configuration of the app, with the access group that it shares with this extension.
        open var configuration: Configuration? { nil }

        private var showing: Showing?

        override open func didReceive(
            _ request: UNNotificationRequest,
            withContentHandler contentHandler: @escaping (UNNotificationContent) -> Void
        ) {
            let original = request.content
            guard let content = original.mutableCopy() as? UNMutableNotificationContent else {
                return contentHandler(original)
            }
            let payload = Payload(original.userInfo)
            let showing = Showing(content, contentHandler)
            self.showing = showing
            showing.start { [configuration] in
                // At the same time: what is shown waits for the slower of the two, not for both.
                async let reported: Void = Self.report(payload, with: configuration)
                var picture: URL?
                if let address = payload.imageURL {
                    picture = await Self.picture(from: address)
                }
                await reported
                return picture
            }
        }

        /// iOS gives about thirty seconds; what is there by then is shown.
        override open func serviceExtensionTimeWillExpire() {
            showing?.expire()
        }

        private static func report(_ payload: Payload, with configuration: Configuration?) async {
            guard let configuration else { return }
            await HandbellDevice(configuration).report(.displayed, of: payload)
        }

        private static func picture(from address: URL) async -> URL? {
            guard address.scheme == "https",
                let (file, response) = try? await URLSession.shared.download(from: address),
                (response as? HTTPURLResponse)?.statusCode == 200
            else { return nil }
            // The attachment's type is told by the extension of its name.
            let name = response.suggestedFilename ?? address.lastPathComponent
            let named = file.deletingLastPathComponent()
                .appendingPathComponent("\(UUID())-\(name)")
            guard (try? FileManager.default.moveItem(at: file, to: named)) != nil else {
                return nil
            }
            return named
        }
    }

    /// One notification on its way to the screen. It gets there once: the work and iOS may both be
    /// at the end, on two threads.
    private final class Showing: @unchecked Sendable {
        private let lock = NSLock()
        private let content: UNMutableNotificationContent
        private var deliver: ((UNNotificationContent) -> Void)?
        private var work: Task<Void, Never>?

        init(
            _ content: UNMutableNotificationContent,
            _ deliver: @escaping (UNNotificationContent) -> Void
        ) {
            self.content = content
            self.deliver = deliver
        }

        func start(_ fetch: @escaping @Sendable () async -> URL?) {
            let work = Task { finish(with: await fetch()) }
            lock.withLock { self.work = work }
        }

        func expire() {
            lock.withLock { work }?.cancel()
            finish(with: nil)
        }

        private func finish(with picture: URL?) {
            lock.withLock {
                guard let deliver else { return }
                self.deliver = nil
                if let picture,
                    let attachment = try? UNNotificationAttachment(
                        identifier: "picture", url: picture)
                {
                    content.attachments = [attachment]
                }
                deliver(content)
            }
        }
    }
#endif
