import Foundation

#if canImport(Security)
    import Security
#endif

/// A place that keeps a few bytes.
///
/// Whatever is wrong with the place is thrown: `nil` promises that there is nothing.
public protocol Storage: Sendable {
    func read() throws -> Data?
    /// Puts data in the place of what was there. When it throws, what was there is there still.
    func write(_ data: Data) throws
}

/// Keeps bytes in a file that can be read while the phone is locked, and goes with the app.
public struct FileStorage: Storage {
    let file: URL

    public init(_ file: URL) {
        self.file = file
    }

    /// The file of an app that tells this installation from a former one: unlike the keychain it
    /// does not survive when the app is deleted.
    static func installation(of app: String) -> FileStorage {
        let folder = FileManager.default.urls(for: .applicationSupportDirectory, in: .userDomainMask)
        let name = app.replacingOccurrences(of: "/", with: "-")
        return FileStorage(folder[0].appendingPathComponent("handbell-\(name)"))
    }

    public func read() throws -> Data? {
        do {
            return try Data(contentsOf: file)
        } catch CocoaError.fileReadNoSuchFile {
            return nil
        } catch {
            throw HandbellError.storage(error.localizedDescription)
        }
    }

    public func write(_ data: Data) throws {
        do {
            try FileManager.default.createDirectory(
                at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            #if os(iOS)
                try data.write(to: file, options: [.atomic, .noFileProtection])
            #else
                try data.write(to: file, options: .atomic)
            #endif
        } catch {
            throw HandbellError.storage(error.localizedDescription)
        }
    }
}

#if canImport(Security)
    /// Keeps bytes in the keychain, readable after the first unlock, so that the extension can
    /// report a notification while the phone is locked. They never leave this device in a backup.
    public struct KeychainStorage: Storage {
        let app: String
        let accessGroup: String?

        public init(_ configuration: Configuration) {
            app = configuration.app
            accessGroup = configuration.accessGroup
        }

        public func read() throws -> Data? {
            var query = item
            query[kSecReturnData] = true
            query[kSecMatchLimit] = kSecMatchLimitOne
            var found: CFTypeRef?
            let status = SecItemCopyMatching(query as CFDictionary, &found)
            if status == errSecItemNotFound { return nil }
            try check(status)
            guard let data = found as? Data else { throw HandbellError.storage("not readable") }
            return data
        }

        public func write(_ data: Data) throws {
            let values: [CFString: Any] = [
                kSecValueData: data,
                kSecAttrAccessible: kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly,
            ]
            // Changed in its place: what is erased first is lost when the second step fails.
            var status = SecItemUpdate(item as CFDictionary, values as CFDictionary)
            if status == errSecItemNotFound {
                let added = item.merging(values) { _, new in new }
                status = SecItemAdd(added as CFDictionary, nil)
            }
            try check(status)
        }

        private func check(_ status: OSStatus) throws {
            guard status != errSecSuccess else { return }
            let reason = SecCopyErrorMessageString(status, nil) as String?
            throw HandbellError.storage("\(reason ?? "the keychain") (\(status))")
        }

        private var item: [CFString: Any] {
            var query: [CFString: Any] = [
                kSecClass: kSecClassGenericPassword,
                kSecAttrService: "handbell",
                kSecAttrAccount: app,
            ]
            if let accessGroup {
                query[kSecAttrAccessGroup] = accessGroup
            }
            return query
        }
    }
#endif
