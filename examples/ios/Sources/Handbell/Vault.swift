import Foundation
import Security

/// The session of this device: its id, and the secret by which the device speaks for it.
struct Session: Codable, Sendable {
    let id: Int
    let secret: String
}

/// Keeps the session in the keychain, readable after the first unlock, so that the extension can
/// report a notification while the phone is locked. It never leaves this device in a backup.
struct Vault: Sendable {
    let app: String
    let accessGroup: String?

    func read() -> Session? {
        var query = item
        query[kSecReturnData] = true
        query[kSecMatchLimit] = kSecMatchLimitOne
        var found: CFTypeRef?
        guard SecItemCopyMatching(query as CFDictionary, &found) == errSecSuccess,
            let data = found as? Data
        else { return nil }
        return try? JSONDecoder().decode(Session.self, from: data)
    }

    func write(_ session: Session) throws {
        erase()
        var values = item
        values[kSecValueData] = try JSONEncoder().encode(session)
        values[kSecAttrAccessible] = kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly
        let status = SecItemAdd(values as CFDictionary, nil)
        guard status == errSecSuccess else {
            throw NSError(domain: NSOSStatusErrorDomain, code: Int(status))
        }
    }

    func erase() {
        SecItemDelete(item as CFDictionary)
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
