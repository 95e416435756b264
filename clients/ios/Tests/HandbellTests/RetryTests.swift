import XCTest

@testable import Handbell

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// When a request is made again, as a table.
final class RetryTests: XCTestCase {
    private func problem(
        _ status: Int, _ code: String = "unavailable", after: TimeInterval? = nil
    ) -> Problem {
        Problem(status: status, code: code, detail: nil, fix: nil, retryAfter: after)
    }

    func testThePauseGrowsAndHasAnEnd() {
        let retry = Retry(attempts: 9)
        let pauses = (1...9).map { retry.pause(after: $0, problem(503), random: 1) }
        XCTAssertEqual(pauses, [1, 2, 4, 8, 16, 30, 30, 30, nil])
        XCTAssertEqual(retry.pause(after: 3, problem(503), random: 0), 2)
    }

    func testTheServerMayAskForMore() {
        let retry = Retry.standard
        XCTAssertEqual(retry.pause(after: 1, problem(429, after: 20), random: 0), 20)
        XCTAssertEqual(retry.pause(after: 1, problem(429, after: 20), random: 1), 20.5)
        XCTAssertEqual(retry.pause(after: 1, problem(429, after: 0), random: 0), 0)
        XCTAssertNil(retry.pause(after: 1, problem(429, after: 61), random: 0))
        XCTAssertNil(retry.pause(after: 4, problem(429, after: 1), random: 0))
    }

    func testOnlyWhatPassesIsTriedAgain() {
        let statuses = [
            200: false, 302: false, 400: false, 401: false, 403: false, 404: false, 408: true,
            409: false, 410: false, 413: false, 422: false, 425: true, 429: true, 431: false,
            500: true, 501: false, 502: true, 503: true, 504: true, 511: false,
        ]
        for (status, passes) in statuses {
            XCTAssertEqual(Retry.isPassing(problem(status)), passes, "\(status)")
        }
        let codes: [(URLError.Code, Bool)] = [
            (.timedOut, true), (.networkConnectionLost, true), (.notConnectedToInternet, true),
            (.cannotFindHost, true), (.cancelled, false), (.secureConnectionFailed, false),
            (.serverCertificateUntrusted, false), (.badURL, false),
            (.userAuthenticationRequired, false),
        ]
        for (code, passes) in codes {
            XCTAssertEqual(Retry.isPassing(URLError(code)), passes, "\(code)")
        }
        XCTAssertFalse(Retry.isPassing(CancellationError()))
        XCTAssertFalse(Retry.isPassing(HandbellError.noIdentity))
    }

    /// A link is not mailed a second time where the first one may be on its way.
    func testAMailIsAskedForOnce() {
        let cases: [(any Error, Bool)] = [
            (URLError(.cannotConnectToHost), true), (URLError(.notConnectedToInternet), true),
            (problem(503), true), (problem(429, "rate-limited"), true),
            (URLError(.timedOut), false), (URLError(.networkConnectionLost), false),
            (problem(502, Problem.unknown), false), (problem(504, Problem.unknown), false),
            (problem(500, "internal-error"), false),
        ]
        for (error, isRepeated) in cases {
            let pause = Retry.mailing.pause(after: 1, error, random: 0)
            XCTAssertEqual(pause != nil, isRepeated, "\(error)")
            XCTAssertNotNil(Retry.standard.pause(after: 1, error, random: 0), "\(error)")
        }
    }

    func testRetryAfterIsSecondsOrAnInstant() {
        let now = Date(timeIntervalSince1970: 784_111_777)
        let headers: [String?: TimeInterval?] = [
            "7": 7, " 120 ": 120, "0": 0, "-3": nil, "soon": nil, "": nil, nil: nil, "1.5": nil,
            "٣": nil,
            "Sun, 06 Nov 1994 08:50:37 GMT": 60,
            "Sun, 06 Nov 1994 08:49:00 GMT": 0,
        ]
        for (header, seconds) in headers {
            XCTAssertEqual(Retry.seconds(header, now: now), seconds, header ?? "nil")
        }
    }
}
