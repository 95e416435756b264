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
        let folder = FileManager.default.urls(
            for: .applicationSupportDirectory, in: .userDomainMask)
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

/// Keeps bytes in the keychain, readable after the first unlock, so that the extension can report a
/// notification while the phone is locked. They never leave this device in a backup.
public struct KeychainStorage: Storage {
    let keychain: any Keychain

    init(_ keychain: any Keychain) {
        self.keychain = keychain
    }

    public func read() throws -> Data? {
        let (status, data) = keychain.find()
        if status == KeychainStatus.notFound { return nil }
        try check(status)
        guard let data else { throw HandbellError.storage("the keychain's item has no data") }
        return data
    }

    public func write(_ data: Data) throws {
        // Changed in its place: what is erased first is lost when the second step fails.
        var status = keychain.change(to: data)
        if status == KeychainStatus.notFound {
            status = keychain.add(data)
            // Somebody else was quicker.
            if status == KeychainStatus.isThere { status = keychain.change(to: data) }
        }
        try check(status)
    }

    private func check(_ status: Int32) throws {
        guard status != KeychainStatus.success else { return }
        throw HandbellError.storage("\(keychain.words(for: status)) (\(status))")
    }
}

/// One item of a keychain, and what can be done with it. Each answers with a status.
protocol Keychain: Sendable {
    func find() -> (Int32, Data?)
    func change(to data: Data) -> Int32
    func add(_ data: Data) -> Int32
    func words(for status: Int32) -> String
}

/// The statuses of Security that make a difference here.
enum KeychainStatus {
    static let success: Int32 = 0
    static let notFound: Int32 = -25300
    static let isThere: Int32 = -25299
}

#if canImport(Security)
    extension KeychainStorage {
        public init(_ configuration: Configuration) {
            self.init(
                SystemKeychain(app: configuration.app, accessGroup: configuration.accessGroup))
        }
    }

    /// The device's own keychain.
    private struct SystemKeychain: Keychain {
        let app: String
        let accessGroup: String?

        func find() -> (Int32, Data?) {
            var query = item
            query[kSecReturnData] = true
            query[kSecMatchLimit] = kSecMatchLimitOne
            var found: CFTypeRef?
            let status = SecItemCopyMatching(query as CFDictionary, &found)
            return (status, found as? Data)
        }

        func change(to data: Data) -> Int32 {
            SecItemUpdate(item as CFDictionary, values(data) as CFDictionary)
        }

        func add(_ data: Data) -> Int32 {
            SecItemAdd(item.merging(values(data)) { _, new in new } as CFDictionary, nil)
        }

        func words(for status: Int32) -> String {
            SecCopyErrorMessageString(status, nil) as String? ?? "the keychain"
        }

        private func values(_ data: Data) -> [CFString: Any] {
            [
                kSecValueData: data,
                kSecAttrAccessible: kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly,
            ]
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
