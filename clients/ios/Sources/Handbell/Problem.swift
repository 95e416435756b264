import Foundation

/// What the server found wrong: a problem of RFC 9457.
///
/// Where something else has answered, a proxy or the page of a hotel's network, `code` is
/// `unknown`: it says nothing about the session.
public struct Problem: Error, Sendable, Equatable, LocalizedError {
    public let status: Int
    public let code: String
    public let detail: String?
    public let fix: String?
    /// How many seconds the server asks to wait before the next attempt.
    public let retryAfter: TimeInterval?

    /// The code of what Handbell did not say.
    public static let unknown = "unknown"

    /// Whether the server itself says that it knows no session with this secret.
    var isGone: Bool {
        (status == 401 && code == "unauthorized") || (status == 404 && code == "session-unknown")
    }

    /// Whether the server wants to be shown once more whose device this is.
    var wantsProof: Bool { code == "proof-required" }

    public var errorDescription: String? {
        [detail ?? "The server answered \(status) (\(code)).", fix].compactMap { $0 }
            .joined(separator: " ")
    }
}

extension Problem {
    private struct Document: Decodable {
        let status: Int
        let code: String
        let detail: String?
        let fix: String?
    }

    /// Reads an answer that is not a success. Only the server's own problem document, with the
    /// status that the answer has, counts as its word.
    init(status: Int, type: String?, body: Data, retryAfter: TimeInterval?) {
        let media = type?.split(separator: ";").first?.trimmingCharacters(in: .whitespaces)
        var said: Document?
        if media?.lowercased() == "application/problem+json" {
            said = try? JSONDecoder().decode(Document.self, from: body)
        }
        if said?.status != status { said = nil }
        self.init(
            status: status, code: said?.code ?? Problem.unknown, detail: said?.detail,
            fix: said?.fix, retryAfter: retryAfter)
    }
}
