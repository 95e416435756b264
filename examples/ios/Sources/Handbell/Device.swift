import Foundation

/// What a device tells of itself. Only what sending needs; no advertising or vendor id.
struct Device: Encodable, Sendable {
    var mail: String?
    var identityToken: String?
    var deviceToken: String
    var platform: String
    var environment: String
    var locale: String
    var timeZone: String
    var device: String
    var appVersion: String?
    var osVersion: String

    static func current(token: Data) -> Device {
        let version = ProcessInfo.processInfo.operatingSystemVersion
        return Device(
            deviceToken: token.map { String(format: "%02x", $0) }.joined(),
            platform: model.hasPrefix("iPad") ? "ipados" : "ios",
            environment: environment,
            locale: Bundle.main.preferredLocalizations.first ?? Locale.current.identifier,
            timeZone: TimeZone.current.identifier,
            device: model,
            appVersion: Bundle.main.infoDictionary?["CFBundleShortVersionString"] as? String,
            osVersion: "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
        )
    }

    /// The kind of machine, such as `iPhone17,3`; never the name that its owner gave it.
    private static var model: String {
        #if targetEnvironment(simulator)
            if let simulated = ProcessInfo.processInfo.environment["SIMULATOR_MODEL_IDENTIFIER"] {
                return simulated
            }
        #endif
        var system = utsname()
        uname(&system)
        return withUnsafePointer(to: &system.machine) { pointer in
            pointer.withMemoryRebound(to: CChar.self, capacity: Int(_SYS_NAMELEN)) {
                String(cString: $0)
            }
        }
    }

    /// Where tokens of this build live: the entitlement `aps-environment` decides it.
    ///
    /// A build from the App Store or TestFlight has no provisioning profile in it, and is for
    /// production. A wrong guess is no harm: the server tries the other environment once.
    private static var environment: String {
        #if targetEnvironment(simulator)
            return "development"
        #else
            guard let path = Bundle.main.path(forResource: "embedded", ofType: "mobileprovision"),
                let profile = try? String(contentsOfFile: path, encoding: .isoLatin1),
                let entitlement = profile.range(of: "<key>aps-environment</key>")
            else { return "production" }
            let value = profile[entitlement.upperBound...].prefix(60)
            return value.contains("development") ? "development" : "production"
        #endif
    }
}
