// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "Handbell",
    // macOS is for `swift test`.
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [
        // For the app itself.
        .library(name: "Handbell", targets: ["Handbell"]),
        // For its notification service extension.
        .library(name: "HandbellService", targets: ["HandbellService"]),
    ],
    targets: [
        .target(name: "Handbell", resources: [.copy("PrivacyInfo.xcprivacy")]),
        .target(name: "HandbellService", dependencies: ["Handbell"]),
        .testTarget(name: "HandbellTests", dependencies: ["Handbell"]),
    ],
    swiftLanguageModes: [.v6]
)
