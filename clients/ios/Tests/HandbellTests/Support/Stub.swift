import Foundation
import XCTest

@testable import Handbell

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// A request as the stub got it.
struct Asked: Sendable, Equatable {
    let method: String
    /// What follows `sessions` in the address.
    let path: String
    let bearer: String?
    let body: [String: String]

    /// The method, the session and the secret, such as `DELETE /7 hbs_a`.
    var line: String {
        [method, path, bearer ?? ""].filter { !$0.isEmpty }.joined(separator: " ")
    }
}

/// What the stub does with a request.
enum Reply: Sendable {
    case answer(Int, String, [String: String])
    case failure(URLError.Code)

    static func json(_ status: Int, _ body: String) -> Reply {
        .answer(status, body, ["Content-Type": "application/json"])
    }

    /// A session as the server tells it.
    static func told(_ id: Int, _ status: String, _ secret: String? = nil) -> Reply {
        let quoted = secret.map { "\"\($0)\"" } ?? "null"
        return json(
            secret == nil ? 200 : 201,
            #"{"id": \#(id), "status": "\#(status)", "secret": \#(quoted), "session": null}"#)
    }

    /// The server's own problem document.
    static func problem(
        _ status: Int, _ code: String, headers: [String: String] = [:]
    ) -> Reply {
        .answer(
            status, #"{"status": \#(status), "code": "\#(code)", "detail": "No", "fix": "Yes"}"#,
            headers.merging(["Content-Type": "application/problem+json"]) { _, new in new })
    }

    static let void = problem(401, "unauthorized")
    static let closed = Reply.answer(204, "", [:])
    static let offline = Reply.failure(.notConnectedToInternet)
    /// The page of a network that wants to be signed in to.
    static func page(_ status: Int) -> Reply {
        .answer(status, "<html>Welcome</html>", ["Content-Type": "text/html"])
    }
}

/// A send server that does what a test says; nothing leaves the process.
final class Stub: @unchecked Sendable {
    typealias Work = @Sendable (Asked) async -> Reply

    private static let lock = NSLock()
    nonisolated(unsafe) private static var stubs: [String: Stub] = [:]

    let host = "stub-\(UUID().uuidString.lowercased()).example"
    private let lock = NSLock()
    private var work: Work
    private var log: [Asked] = []

    init(_ work: @escaping Work) {
        self.work = work
        Stub.lock.withLock { Stub.stubs[host] = self }
    }

    /// What has been asked so far.
    var asked: [Asked] { lock.withLock { log } }
    var lines: [String] { asked.map(\.line) }

    /// Answers differently from now on, and begins to log anew.
    func now(_ work: @escaping Work) {
        lock.withLock {
            self.work = work
            log = []
        }
    }

    /// Holds the answer to requests of a method back until the second gate is opened; the first one
    /// opens when there is such a request. What else is asked is answered by `others`.
    func hold(
        _ method: String, _ reply: Reply,
        others: @escaping @Sendable (Asked) -> Reply = { _ in .closed }
    ) -> (asked: Gate, gate: Gate) {
        let (asked, gate) = (Gate(), Gate())
        now { request in
            guard request.method == method else { return others(request) }
            await asked.open()
            await gate.wait()
            return reply
        }
        return (asked, gate)
    }

    var transport: URLSession {
        let configuration = URLSessionConfiguration.ephemeral
        configuration.protocolClasses = [StubProtocol.self]
        return URLSession(configuration: configuration)
    }

    fileprivate static func of(_ request: URLRequest) -> Stub? {
        lock.withLock { request.url?.host.flatMap { stubs[$0] } }
    }

    fileprivate func answer(_ asked: Asked) async -> Reply {
        let work = lock.withLock {
            log.append(asked)
            return self.work
        }
        return await work(asked)
    }
}

private final class StubProtocol: URLProtocol, @unchecked Sendable {
    private let lock = NSRecursiveLock()
    private var isStopped = false

    override class func canInit(with request: URLRequest) -> Bool { Stub.of(request) != nil }
    override class func canonicalRequest(for request: URLRequest) -> URLRequest { request }

    override func startLoading() {
        guard let stub = Stub.of(request), let url = request.url else { return }
        let path = url.path.components(separatedBy: "/sessions").last ?? ""
        let asked = Asked(
            method: request.httpMethod ?? "",
            path: path,
            bearer: request.value(forHTTPHeaderField: "Authorization")?
                .replacingOccurrences(of: "Bearer ", with: ""),
            body: (try? JSONDecoder().decode([String: String].self, from: content)) ?? [:])
        Task { self.tell(await stub.answer(asked), url) }
    }

    override func stopLoading() {
        lock.withLock { isStopped = true }
    }

    private func tell(_ reply: Reply, _ url: URL) {
        lock.lock()
        defer { lock.unlock() }
        guard !isStopped else { return }
        switch reply {
        case .failure(let code):
            client?.urlProtocol(self, didFailWithError: URLError(code))
        case .answer(let status, let body, let headers):
            let response = HTTPURLResponse(
                url: url, statusCode: status, httpVersion: "HTTP/1.1", headerFields: headers)!
            client?.urlProtocol(self, didReceive: response, cacheStoragePolicy: .notAllowed)
            client?.urlProtocol(self, didLoad: Data(body.utf8))
            client?.urlProtocolDidFinishLoading(self)
        }
    }

    /// URLSession hands a body over as a stream where it can.
    private var content: Data {
        if let data = request.httpBody { return data }
        guard let stream = request.httpBodyStream else { return Data() }
        stream.open()
        defer { stream.close() }
        var data = Data()
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = stream.read(&buffer, maxLength: buffer.count)
            guard count > 0 else { return data }
            data.append(contentsOf: buffer[0..<count])
        }
    }
}

/// Lets whoever waits go on once it is opened.
actor Gate {
    private var isOpen = false
    private var waiting: [CheckedContinuation<Void, Never>] = []

    func wait() async {
        if isOpen { return }
        await withCheckedContinuation { waiting.append($0) }
    }

    func open() {
        isOpen = true
        for one in waiting { one.resume() }
        waiting = []
    }
}
