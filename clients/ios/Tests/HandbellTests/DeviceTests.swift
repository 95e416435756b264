import XCTest

@testable import Handbell

/// What a device tells of itself, and where its session is kept.
final class DeviceTests: XCTestCase {
    /// The language that the user reads, with a region.
    func testTheLocaleHasARegion() {
        let locales: [(String?, String?, String)] = [
            ("fr-CH", "US", "fr-CH"), ("fr", "CH", "fr-CH"), ("pt_BR", "PT", "pt-BR"),
            ("zh-Hant", "TW", "zh-Hant-TW"), ("zh-Hant-HK", "TW", "zh-Hant-HK"),
            ("es-419", "MX", "es-419"), ("de-1996", "AT", "de-AT-1996"), ("gsw", "CH", "gsw-CH"),
            ("en_US@calendar=buddhist", "TH", "en-US"), ("ar-u-nu-latn", "EG", "ar-EG"),
            ("en_GB.UTF-8", nil, "en-GB"), ("fr", nil, "fr"), ("fr", "", "fr"),
            ("C", "CH", "en"), (nil, "CH", "en"), ("", nil, "en"),
        ]
        for (language, region, locale) in locales {
            XCTAssertEqual(
                Device.locale(languages: [language].compactMap { $0 }, region: region), locale)
        }
    }

    /// The facts are in the words that the server reads.
    func testADeviceDescribesItself() throws {
        let device = Device.current(token: Data([0, 255, 16]), environment: .twin)
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        let told = try JSONDecoder().decode([String: String].self, from: encoder.encode(device))
        XCTAssertEqual(told["device_token"], "00ff10")
        XCTAssertEqual(told["environment"], "twin")
        XCTAssertEqual(told["time_zone"], TimeZone.autoupdatingCurrent.identifier)
        XCTAssertFalse(told["device"]?.isEmpty ?? true)
        XCTAssertNil(told["mail"])
        XCTAssertNil(Device.current(token: nil).deviceToken)
    }

    /// A file keeps what was written last; where it can't be used, that is an error.
    func testAFileKeepsWhatWasWritten() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID())")
        defer { try? FileManager.default.removeItem(at: folder) }
        let storage = FileStorage(folder.appendingPathComponent("a/b"))
        XCTAssertNil(try storage.read())
        for text in ["one", "two"] {
            try storage.write(Data(text.utf8))
            XCTAssertEqual(try storage.read(), Data(text.utf8))
        }
        let inFile = FileStorage(storage.file.appendingPathComponent("c"))
        XCTAssertThrowsError(try inFile.write(Data()))
        XCTAssertThrowsError(try FileStorage(folder).read())
    }

    /// The manifest that the App Store asks for is there, and can be read.
    func testThereIsAPrivacyManifest() throws {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appendingPathComponent("../../Sources/Handbell/PrivacyInfo.xcprivacy")
        let manifest = try PropertyListSerialization.propertyList(
            from: Data(contentsOf: file), format: nil)
        let members = try XCTUnwrap(manifest as? [String: Any])
        XCTAssertEqual(members["NSPrivacyTracking"] as? Bool, false)
        XCTAssertEqual((members["NSPrivacyCollectedDataTypes"] as? [Any])?.count, 3)
    }
}
