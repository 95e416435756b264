import Foundation

#if canImport(Glibc)
    import Glibc
#endif

/// What a device tells of itself. Only what sending needs; no advertising or vendor id.
struct Device: Encodable, Sendable, Equatable {
    var mail: String?
    var identityToken: String?
    var deviceToken: String?
    var platform: String
    var environment: String
    var locale: String
    var timeZone: String
    var device: String
    var appVersion: String?
    var osVersion: String

    static func current(
        token: Data?, environment: Configuration.Environment? = nil
    ) -> Device {
        let version = ProcessInfo.processInfo.operatingSystemVersion
        return Device(
            deviceToken: token?.map { String(format: "%02x", $0) }.joined(),
            platform: platform,
            environment: (environment ?? built).rawValue,
            locale: locale(
                languages: Locale.preferredLanguages,
                region: Locale.autoupdatingCurrent.regionCode),
            timeZone: TimeZone.autoupdatingCurrent.identifier,
            device: model,
            appVersion: Bundle.main.infoDictionary?["CFBundleShortVersionString"] as? String,
            osVersion: "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
        )
    }

    /// The user's first language, of this app where they chose one for it, with the region: that of
    /// the language (`fr-CH`), else that of the device.
    static func locale(languages: [String], region: String?) -> String {
        // What follows an at sign or `-u-` is about calendars and numbers.
        let first = (languages.first ?? "").replacingOccurrences(of: "_", with: "-")
        var parts = first.prefix { $0 != "@" && $0 != "." }.split(separator: "-")
        if let extra = parts.dropFirst().firstIndex(where: { $0.count == 1 }) {
            parts.removeSubrange(extra...)
        }
        guard let language = parts.first, 2...3 ~= language.count else { return "en" }
        let hasRegion = parts.dropFirst().contains { part in
            part.count == 2 || (part.count == 3 && part.allSatisfy(\.isNumber))
        }
        if !hasRegion, let region, !region.isEmpty {
            // Language, script, region, variants.
            let hasScript =
                parts.count > 1 && parts[1].count == 4 && parts[1].allSatisfy(\.isLetter)
            parts.insert(Substring(region), at: hasScript ? 2 : 1)
        }
        return parts.joined(separator: "-")
    }

    private static var platform: String {
        #if os(macOS) || targetEnvironment(macCatalyst)
            "macos"
        #elseif os(visionOS)
            "visionos"
        #elseif os(tvOS)
            "tvos"
        #elseif os(watchOS)
            "watchos"
        #else
            model.hasPrefix("iPad") ? "ipados" : "ios"
        #endif
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
        return withUnsafeBytes(of: system.machine) { bytes in
            String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    /// Where tokens of this build live: the entitlement `aps-environment` decides it.
    ///
    /// A build from the App Store or TestFlight has no provisioning profile in it, and is for
    /// production. A wrong guess is no harm: the server tries the other environment once.
    private static var built: Configuration.Environment {
        #if targetEnvironment(simulator)
            return .development
        #else
            guard let path = Bundle.main.path(forResource: "embedded", ofType: "mobileprovision"),
                let profile = try? String(contentsOfFile: path, encoding: .isoLatin1),
                let entitlement = profile.range(of: "<key>aps-environment</key>")
            else { return .production }
            let value = profile[entitlement.upperBound...].prefix(60)
            return value.contains("development") ? .development : .production
        #endif
    }
}
