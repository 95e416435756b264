import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// What the server tells of a session. A secret is told once, so an answer is taken whatever else is
/// strange about it.
struct Told: Decodable, Sendable {
    let id: Int
    let status: Standing
    /// Null where the device has it already.
    let secret: String?

    private enum Key: String, CodingKey {
        case id, status, secret
    }

    init(from decoder: any Decoder) throws {
        let members = try decoder.container(keyedBy: Key.self)
        id = try members.decode(Int.self, forKey: .id)
        status = (try? members.decode(Standing.self, forKey: .status)) ?? .unknown
        secret = try? members.decode(String.self, forKey: .secret)
    }
}

/// The requests of a device, as docs/api.md of the server lists them; each is one attempt.
struct Wire: Sendable {
    let server: URL
    let app: String
    let transport: URLSession

    func register(_ device: Device, speaking session: Session?) async throws -> Told {
        try await told("POST", [], body: device, secret: session?.secret)
    }

    func refresh(_ session: Session, with device: Device) async throws -> Told {
        try await told("PATCH", [String(session.id)], body: device, secret: session.secret)
    }

    func close(_ session: Session) async throws {
        let path = [String(session.id)]
        let (status, _) = try await send(
            "DELETE", path, body: Nothing?.none, secret: session.secret)
        // A page that somebody else puts in between is 200, and closes nothing.
        guard status == 204 else { throw Wire.strange(status) }
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

    private func told(
        _ method: String, _ path: [String], body: Device, secret: String?
    ) async throws -> Told {
        let (status, data) = try await send(method, path, body: body, secret: secret)
        guard let told = try? JSONDecoder().decode(Told.self, from: data) else {
            throw Wire.strange(status)
        }
        return told
    }

    private func send<Body: Encodable>(
        _ method: String,
        _ path: [String],
        body: Body?,
        secret: String?,
        seconds: TimeInterval = 20
    ) async throws -> (Int, Data) {
        var address = server
        for part in ["v1", "apps", app, "sessions"] + path {
            address.appendPathComponent(part)
        }
        var request = URLRequest(
            url: address, cachePolicy: .reloadIgnoringLocalCacheData, timeoutInterval: seconds)
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
        let (data, response) = try await transport.data(for: request, delegate: Unredirected())
        guard let answer = response as? HTTPURLResponse,
            answer.url?.host == address.host, answer.url?.path == address.path
        else { throw Wire.strange((response as? HTTPURLResponse)?.statusCode ?? 0) }
        guard 200..<300 ~= answer.statusCode else {
            throw Problem(
                status: answer.statusCode,
                type: answer.value(forHTTPHeaderField: "Content-Type"),
                body: data,
                retryAfter: Retry.seconds(answer.value(forHTTPHeaderField: "Retry-After")))
        }
        return (answer.statusCode, data)
    }

    private static func strange(_ status: Int) -> Problem {
        Problem(
            status: status, code: Problem.unknown,
            detail: "Something else than the send server has answered (\(status)).",
            fix: "Check the server's address and the network.", retryAfter: nil)
    }
}

/// Follows no redirection: the server never sends one, and a network's sign-in page that does must
/// neither get the secret nor pass for an answer. Foundation on Linux does not ask, and follows.
private final class Unredirected: NSObject, URLSessionTaskDelegate {
    func urlSession(
        _: URLSession,
        task _: URLSessionTask,
        willPerformHTTPRedirection _: HTTPURLResponse,
        newRequest _: URLRequest,
        completionHandler: @escaping @Sendable (URLRequest?) -> Void
    ) {
        completionHandler(nil)
    }
}
