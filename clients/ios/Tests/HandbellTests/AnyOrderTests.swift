import XCTest

@testable import Handbell

/// Whatever is called in whatever order, with a network that fails as it likes.
final class AnyOrderTests: XCTestCase {
    /// After a sign-out no session is open that the server has told of; after a sign-in the phone has
    /// the one session that is its own.
    func testNoSessionIsLeftBehind() async throws {
        for seed in 0..<60 { try await walk(seed, keychainFails: false) }
    }

    /// So it is with a keychain that fails now and then, as long as the app runs.
    func testNoSessionIsLeftBehindByAKeychainThatFails() async throws {
        for seed in 100..<140 { try await walk(seed, keychainFails: true) }
    }

    private func walk(_ seed: Int, keychainFails: Bool) async throws {
        let server = Server(seed: UInt64(seed))
        let phone = Phone { await server.answer($0) }
        let (container, random) = (MemoryStorage(), Numbers(UInt64(seed) &+ 1000))
        var device = phone.start(container, identity: { "fresh" })
        for _ in 0..<4 {
            await withTaskGroup(of: Void.self) { group in
                for _ in 0..<4 {
                    let (call, later, used) = (random.below(8), random.below(6), device)
                    group.addTask {
                        // So that it meets another one that is under way.
                        try? await Task.sleep(nanoseconds: UInt64(later) * 1_000_000)
                        guard keychainFails else { return await Self.make(call, used, server) }
                        phone.keychain.fail(call.isMultiple(of: 3) ? .storage("no") : nil)
                        // A back end keeps its session until somebody could adopt it.
                        await Self.make(call == 5 ? 6 : call, used, server)
                    }
                }
            }
            if keychainFails { continue }
            // The app is started anew, or was deleted and installed again.
            if random.below(3) == 0 { device = phone.start(container, identity: { "fresh" }) }
            if random.below(8) == 0 {
                device = phone.start(MemoryStorage(), identity: { "fresh" })
            }
        }
        server.calm()
        phone.keychain.fail(nil)
        if seed.isMultiple(of: 2) {
            try await device.signOut()
            XCTAssertEqual(server.open.subtracting(server.lost), [], "seed \(seed)")
            XCTAssertEqual(phone.secrets, [], "seed \(seed)")
        } else {
            let standing = try await device.register(
                deviceToken: token, identity: .token("last"))
            XCTAssertEqual(standing, .active, "seed \(seed)")
            XCTAssertEqual(
                Set(phone.secrets), server.open.subtracting(server.lost), "seed \(seed)")
            XCTAssertEqual(phone.secrets.count, 1, "seed \(seed)")
        }
    }

    private static func make(_ call: Int, _ device: HandbellDevice, _ server: Server) async {
        switch call {
        case 0: _ = try? await device.register(deviceToken: token, identity: .token("jwt"))
        case 1: _ = try? await device.register(deviceToken: token, identity: .mail("a@x.example"))
        case 2: _ = try? await device.register(deviceToken: token, identity: .mail("b@x.example"))
        case 3: _ = try? await device.signIn(.fresh)
        case 4: _ = try? await device.signOut()
        case 5:
            let (id, secret) = server.made()
            _ = try? await device.adopt(session: id, secret: secret)
        default: _ = try? await device.refresh(deviceToken: token)
        }
    }
}

/// Remembers sessions as the server does: one token has one proven owner; who only claims it takes
/// nothing from anybody. Some requests do not arrive, and some answers do not come back.
private final class Server: @unchecked Sendable {
    private struct One {
        let id: Int
        let person: String
        var isProven: Bool
    }

    private let lock = NSLock()
    private let random: Numbers
    private var isCalm = false
    private var count = 0
    private var sessions: [String: One] = [:]
    /// Secrets that were told, and did not arrive.
    private(set) var lost: Set<String> = []

    init(seed: UInt64) { random = Numbers(seed) }

    /// The secrets of the sessions that are open.
    var open: Set<String> { lock.withLock { Set(sessions.keys) } }

    func calm() { lock.withLock { isCalm = true } }

    /// Makes a session as a back end does by its key.
    func made() -> (Int, String) {
        lock.withLock {
            let secret = add("key", isProven: true)
            return (sessions[secret]!.id, secret)
        }
    }

    func answer(_ asked: Asked) async -> Reply {
        for _ in 0..<random.below(5) { await Task.yield() }
        return lock.withLock {
            let luck = isCalm ? 9 : random.below(10)
            switch luck {
            case 0: return .offline
            case 1: return .problem(503, "unavailable")
            case 2: return .page(401)
            default: break
            }
            let before = Set(sessions.keys)
            let reply = work(asked)
            guard luck == 3 else { return reply }
            lost.formUnion(Set(sessions.keys).subtracting(before))
            return .failure(.timedOut)
        }
    }

    private func work(_ asked: Asked) -> Reply {
        let known = asked.bearer.flatMap { sessions[$0] }
        switch asked.method {
        case "POST":
            guard let mail = asked.body["mail"] else {
                let secret = add("token", isProven: true)
                return .told(sessions[secret]!.id, "active", secret)
            }
            if let known, known.person == mail {
                return .told(known.id, known.isProven ? "active" : "pending")
            }
            let secret = add(mail, isProven: false)
            return .told(sessions[secret]!.id, "pending", secret)
        case "PATCH":
            guard var known, let secret = asked.bearer else { return .void }
            // Now and then the mailed link was opened.
            if !known.isProven, random.below(2) == 0 {
                known.isProven = true
                take()
                sessions[secret] = known
            }
            return .told(known.id, known.isProven ? "active" : "pending")
        default:
            guard known != nil, let secret = asked.bearer else { return .void }
            sessions[secret] = nil
            return .closed
        }
    }

    private func add(_ person: String, isProven: Bool) -> String {
        count += 1
        if isProven { take() }
        sessions["hbs_\(count)"] = One(id: count, person: person, isProven: isProven)
        return "hbs_\(count)"
    }

    private func take() { sessions = sessions.filter { !$0.value.isProven } }
}
