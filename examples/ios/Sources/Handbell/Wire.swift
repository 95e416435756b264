import Foundation

/// The server's answer to a registration.
struct Registration: Decodable, Sendable {
    let id: Int
    let status: Standing
    let secret: String
}

/// The server's answer to a refresh.
struct Refreshed: Decodable, Sendable {
    let status: Standing
}

/// What the server found wrong: a problem of RFC 9457.
public struct Problem: Error, Decodable, Sendable, LocalizedError {
    public let status: Int
    public let code: String
    public let detail: String?
    public let fix: String?

    /// Whether the session is no more, so that the device has to register again.
    var isGone: Bool { status == 401 || status == 404 }

    public var errorDescription: String? {
        [detail ?? code, fix].compactMap { $0 }.joined(separator: " ")
    }
}

/// The requests of a device, as docs/api.md of the server lists them.
struct Wire: Sendable {
    let server: URL
    let app: String
    let transport: URLSession

    func register(_ device: Device) async throws -> Registration {
        try await decoded(send("POST", [], body: device))
    }

    func refresh(_ session: Session, with device: Device) async throws -> Refreshed {
        try await decoded(send("PATCH", [String(session.id)], body: device, secret: session.secret))
    }

    func close(_ session: Session) async throws {
        _ = try await send("DELETE", [String(session.id)], body: Nothing?.none, secret: session.secret)
    }

    func report(_ receipt: Receipt, of notification: String, from session: Session) async throws {
        struct Report: Encodable {
            let notificationId: String
            let event: Receipt
        }
        let report = Report(notificationId: notification, event: receipt)
        let path = [String(session.id), "receipts"]
        // What is to be shown may wait for it.
        _ = try await send("POST", path, body: report, secret: session.secret, seconds: 5)
    }

    private struct Nothing: Encodable {}

    private func send<Body: Encodable>(
        _ method: String,
        _ path: [String],
        body: Body?,
        secret: String? = nil,
        seconds: TimeInterval = 20
    ) async throws -> Data {
        var address = server
        for part in ["v1", "apps", app, "sessions"] + path {
            address.appendPathComponent(part)
        }
        var request = URLRequest(url: address, timeoutInterval: seconds)
        request.httpMethod = method
        if let body {
            let encoder = JSONEncoder()
            encoder.keyEncodingStrategy = .convertToSnakeCase
            request.httpBody = try encoder.encode(body)
            request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        }
        if let secret {
            request.setValue("Bearer \(secret)", forHTTPHeaderField: "Authorization")
        }
        let (data, response) = try await transport.data(for: request)
        let status = (response as? HTTPURLResponse)?.statusCode ?? 0
        guard 200..<300 ~= status else {
            let problem = try? JSONDecoder().decode(Problem.self, from: data)
            throw problem ?? Problem(status: status, code: "unknown", detail: nil, fix: nil)
        }
        return data
    }

    private func decoded<Answer: Decodable>(_ data: Data) throws -> Answer {
        try JSONDecoder().decode(Answer.self, from: data)
    }
}
