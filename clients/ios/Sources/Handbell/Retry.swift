import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// When a request that failed is made again.
struct Retry: Sendable, Equatable {
    /// How often it is made at most.
    var attempts = 4
    /// The longest pause before the second attempt, in seconds; it doubles with each further one.
    var first: TimeInterval = 1
    /// No pause is longer, unless the server asks for it.
    var most: TimeInterval = 30
    /// A server that asks for more than this is asked again at the next occasion instead.
    var patience: TimeInterval = 60
    /// Whether only such a request is made again that was certainly not carried out.
    var isOnce = false

    static let standard = Retry()
    /// For what must not happen twice: mailing a link.
    static let mailing = Retry(isOnce: true)
    static let once = Retry(attempts: 1)
    /// For what somebody waits for who is leaving, and what is made good later all the same.
    static let brief = Retry(attempts: 2)

    /// Returns how long to wait after an attempt, counted from 1, has failed; nil for no more.
    /// `random` is between 0 and 1: devices that failed together do not come back together.
    func pause(after attempt: Int, _ error: any Error, random: Double) -> TimeInterval? {
        guard attempt < attempts, Retry.isPassing(error) else { return nil }
        if isOnce && Retry.mayHaveArrived(error) { return nil }
        let longest = min(most, first * pow(2, Double(attempt - 1)))
        let own = longest / 2 * (1 + random)
        guard let asked = (error as? Problem)?.retryAfter else { return own }
        return asked > patience ? nil : asked + (own - longest / 2)
    }

    /// Whether the same request may go well a little later.
    static func isPassing(_ error: any Error) -> Bool {
        switch error {
        case let problem as Problem:
            [408, 425, 429, 500, 502, 503, 504].contains(problem.status)
        case let network as URLError:
            [
                .timedOut, .cannotFindHost, .cannotConnectToHost, .networkConnectionLost,
                .dnsLookupFailed, .notConnectedToInternet, .badServerResponse,
            ].contains(network.code)
        default:
            false
        }
    }

    /// Whether a request that failed like this may have been carried out all the same.
    static func mayHaveArrived(_ error: any Error) -> Bool {
        switch error {
        case let problem as Problem:
            // The server refuses, or says that it can't; a proxy does not know.
            problem.code == Problem.unknown || (problem.status >= 500 && problem.status != 503)
        case let network as URLError:
            ![
                .cannotFindHost, .cannotConnectToHost, .dnsLookupFailed, .notConnectedToInternet,
                .secureConnectionFailed, .badURL, .unsupportedURL,
            ].contains(network.code)
        default:
            false
        }
    }

    /// Reads the header `Retry-After`: seconds, or an instant. Nil for anything else.
    static func seconds(_ header: String?, now: Date = Date()) -> TimeInterval? {
        guard let text = header?.trimmingCharacters(in: .whitespaces), !text.isEmpty else {
            return nil
        }
        if text.allSatisfy(\.isASCIIDigit) { return TimeInterval(text) }
        let format = DateFormatter()
        format.locale = Locale(identifier: "en_US_POSIX")
        format.timeZone = TimeZone(secondsFromGMT: 0)
        format.dateFormat = "EEE, dd MMM yyyy HH:mm:ss 'GMT'"
        return format.date(from: text).map { max(0, $0.timeIntervalSince(now)) }
    }
}

extension Character {
    fileprivate var isASCIIDigit: Bool { "0"..."9" ~= self }
}
