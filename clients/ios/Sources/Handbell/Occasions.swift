import Foundation

#if canImport(UIKit) && !os(watchOS)
    import UIKit
#endif

/// Refreshes at certain occasions as long as it is kept.
public final class Following: @unchecked Sendable {
    private let center: NotificationCenter
    private let observers: [any NSObjectProtocol]

    fileprivate init(_ center: NotificationCenter, _ observers: [any NSObjectProtocol]) {
        self.center = center
        self.observers = observers
    }

    deinit {
        observers.forEach(center.removeObserver)
    }
}

extension HandbellDevice {
    /// When what the server knows may be out of date: the app comes to the front, the time zone or
    /// the language and region change.
    public static var occasions: [Notification.Name] {
        var names: [Notification.Name] = [
            .NSSystemTimeZoneDidChange, NSLocale.currentLocaleDidChangeNotification,
        ]
        #if canImport(UIKit) && !os(watchOS)
            names.append(UIApplication.didBecomeActiveNotification)
        #endif
        return names
    }

    /// Calls ``refreshIfNeeded()`` at each of the occasions, as long as what is returned is kept.
    public nonisolated func follow(
        _ names: [Notification.Name] = HandbellDevice.occasions,
        of center: NotificationCenter = .default
    ) -> Following {
        let observers = names.map { name in
            center.addObserver(forName: name, object: nil, queue: nil) { [weak self] _ in
                // Read anew by whoever asks for it next.
                if name == .NSSystemTimeZoneDidChange { NSTimeZone.resetSystemTimeZone() }
                Task { await self?.refreshIfNeeded() }
            }
        }
        return Following(center, observers)
    }
}
