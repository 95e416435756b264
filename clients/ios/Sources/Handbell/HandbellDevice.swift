import Foundation

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// The device's side of a Handbell server.
///
/// One object for the life of the app. Its calls may come in any order and at the same time: what
/// changes the session happens one after another, and an answer counts only for the session that it
/// was asked for. A sign-in or a sign-out makes those before it void: they throw
/// `CancellationError`, and a session that they still get is ended again.
///
/// Nothing that identifies the user is kept but the session's secret, and a mail address until its
/// registration is answered; both lie in the keychain.
public actor HandbellDevice {
    /// How the client waits. A test does not.
    struct Timing: Sendable {
        var pause: @Sendable (TimeInterval) async throws -> Void = { seconds in
            try await Task.sleep(nanoseconds: UInt64(seconds * 1_000_000_000))
        }
        /// How long ``signOut()`` waits for the network.
        var signOut: TimeInterval = 5
        /// How old what the server knows of the device may be when the app comes to the front.
        var fresh: TimeInterval = 3600
    }

    let configuration: Configuration
    let wire: Wire
    let source: IdentitySource?
    let timing: Timing
    private let vault: Vault

    /// The device token that iOS told last.
    var deviceToken: Data?
    /// Counts sign-ins and sign-outs. Who began under another number has been overtaken.
    private(set) var generation = 0
    /// A sign-in with a token that serves once, which cannot wait for longer than the app runs.
    var waitingToken: String?
    /// What the server was told of the device last, and when.
    var told: (device: Device, at: Date)?

    private var last: Task<Void, Never>?
    private var nap: Task<Void, Never>?
    /// Lets go of what is waited for and may be let go of.
    private var letGo: (@Sendable () -> Void)?
    /// What could not be written down; it counts, and is written at the next occasion.
    private var unsaved: Record?
    /// What was read or written last.
    private var latest: Record?

    #if canImport(Security)
        /// Keeps the session in the keychain. `identity` brings a token for `Identity.fresh`.
        public init(
            _ configuration: Configuration,
            transport: URLSession = .shared,
            identity: IdentitySource? = nil
        ) {
            self.init(
                configuration,
                transport: transport,
                secrets: KeychainStorage(configuration),
                identity: identity)
        }
    #endif

    /// Keeps the session in `secrets`, and in `installation` by what an installation of the app is
    /// told from the one before it: a place that goes with the app.
    public init(
        _ configuration: Configuration,
        transport: URLSession = .shared,
        secrets: any Storage,
        installation: (any Storage)? = nil,
        identity: IdentitySource? = nil
    ) {
        self.init(
            configuration, transport: transport, secrets: secrets, installation: installation,
            identity: identity, timing: Timing())
    }

    init(
        _ configuration: Configuration,
        transport: URLSession,
        secrets: any Storage,
        installation: (any Storage)?,
        identity: IdentitySource?,
        timing: Timing
    ) {
        self.configuration = configuration
        self.timing = timing
        source = identity
        vault = Vault(
            secrets: secrets,
            installation: installation ?? FileStorage.installation(of: configuration.app))
        wire = Wire(server: configuration.server, app: configuration.app, transport: transport)
    }

    /// Whether this device has a session, proven or not. Throws where that can't be told now.
    public var isRegistered: Bool {
        get throws { try record().isRegistered }
    }

    /// Whether somebody has signed in and is not registered yet, without a device token or without
    /// a network. ``refresh(deviceToken:)`` registers them.
    public var isWaiting: Bool {
        get throws { try waitingToken != nil || record().waiting != nil }
    }

    /// Tells the server who uses this device and where it is reached.
    ///
    /// Call it when the user has signed in. The device token comes from
    /// `application(_:didRegisterForRemoteNotificationsWithDeviceToken:)`. A session that is active
    /// keeps on until the new one is. When it throws for want of a network, the sign-in waits as
    /// that of ``signIn(_:)`` does.
    @discardableResult
    public func register(deviceToken token: Data, identity: Identity) async throws -> Standing {
        deviceToken = token
        let mine = try begin(identity)
        return try await inTurn { try await self.registerNow(identity, mine) }
    }

    /// Registers who has signed in, as soon as there is a device token.
    ///
    /// Returns nil while there is none: the sign-in waits for ``refresh(deviceToken:)``, if need be
    /// until the next start of the app.
    @discardableResult
    public func signIn(_ identity: Identity) async throws -> Standing? {
        let mine = try begin(identity)
        guard deviceToken != nil else { return nil }
        return try await inTurn { try await self.registerNow(identity, mine) }
    }

    /// Takes over a session that the app's back end has registered with its API key.
    ///
    /// `id` and `secret` are what the server answered the back end with. Throws
    /// `HandbellError.notASession` when the server knows no such session; the one of before stays
    /// then. Without a network it throws as well, and the session is asked for at the next refresh.
    @discardableResult
    public func adopt(session id: Int, secret: String) async throws -> Standing? {
        guard id > 0, !secret.isEmpty, secret.utf8.allSatisfy({ 33...126 ~= $0 }) else {
            throw HandbellError.notASession
        }
        overtake()
        let mine = generation
        var record = try record()
        record.begin(nil)
        waitingToken = nil
        record.admit(Session(id: id, secret: secret), .unknown)
        try keep(record)
        return try await inTurn {
            try await self.adoptNow(secret, mine)
        }
    }

    /// Tells the server that the app is still there, and what has changed of the device.
    ///
    /// Call it at each start, with the device token of this start. It registers who waits, and ends
    /// sessions of which the server could not be told before. Returns nil where this device has no
    /// session, or none any more: whoever is signed in has to be registered anew. When it throws,
    /// nothing is lost, and it is made good by the next one.
    @discardableResult
    public func refresh(deviceToken token: Data? = nil) async throws -> Standing? {
        deviceToken = token ?? deviceToken
        return try await inTurn { try await self.refreshNow() }
    }

    /// Refreshes where there is a reason: something waits, the language or the time zone is another
    /// one, or the last time is an hour ago. Call it when the app comes to the front.
    public func refreshIfNeeded() async {
        guard let record = try? record() else { return }
        guard record.hasWork || waitingToken != nil || (record.isRegistered && isOutOfDate) else {
            return
        }
        _ = try? await refresh()
    }

    /// Whether the server may know something old of the device. Before the first device token of
    /// this start it does not count: the refresh that comes with it is near.
    private var isOutOfDate: Bool {
        guard let told else { return deviceToken != nil }
        let age = Date().timeIntervalSince(told.at)
        return told.device != describe() || !(0..<timing.fresh ~= age)
    }

    /// Ends every session of this device: nothing more is sent to it for this user.
    ///
    /// Wait for it before the next user signs in. It throws only where the session can't be written
    /// now. Where the server can't be told within five seconds the answer is `deferred`; then call
    /// `unregisterForRemoteNotifications()`, so that iOS shows nothing meanwhile, and
    /// `registerForRemoteNotifications()` at the next sign-in.
    @discardableResult
    public func signOut() async throws -> SignOut {
        overtake()
        waitingToken = nil
        var record = try record()
        record.depart()
        try keep(record)
        let isSettled = await within(timing.signOut) {
            _ = try? await self.inTurn { await self.closeLeaving(.brief) }
        }
        guard var after = try? self.record() else { return .deferred }
        let isTold = after.leaving.isEmpty && !after.isInDoubt
        if after.isInDoubt {
            after.settle()
            try? keep(after)
        }
        return isSettled && isTold ? .closed : .deferred
    }

    /// Reports what became of a notification. A receipt that is lost is no loss for the user, so
    /// this never throws, and gives up after five seconds without an answer.
    public func report(_ receipt: Receipt, of notification: Payload) async {
        // Only looked at: the extension runs beside the app, and changes nothing.
        guard let id = notification.id, let record = unsaved ?? (try? vault.peek()) else { return }
        for session in record.open.reversed() {
            do {
                return try await wire.report(receipt, of: id, from: session)
            } catch is Problem {
                // It was sent to the other one: a link was opened just now.
            } catch {
                return
            }
        }
    }
}

// What the operations build on.
extension HandbellDevice {
    /// Returns the record as it stands.
    func record() throws -> Record {
        if let unsaved { try keep(unsaved) }
        let record = try vault.load()
        latest = record
        return record
    }

    /// Writes the record down. What can't be written is kept in memory, and thrown.
    func keep(_ record: Record) throws {
        unsaved = record
        latest = record
        try vault.save(record)
        unsaved = nil
    }

    /// Changes the record when an answer has come. Where it can't be read it is changed as it was
    /// known last: a secret is told only once.
    func change(_ work: (inout Record) -> Void) throws {
        var record = (try? record()) ?? latest ?? Record()
        work(&record)
        try keep(record)
    }

    /// Makes what is under way void: it does not try again, and its answer counts no more.
    func overtake() {
        generation += 1
        nap?.cancel()
        letGo?()
    }

    /// Does work when everything that was asked for before is done. Whoever waits for it may give
    /// up; the work goes on.
    func inTurn<Value: Sendable>(
        _ work: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        let before = last
        let turn = Task {
            await before?.value
            return try await work()
        }
        last = Task { _ = await turn.result }
        return try await turn.value
    }

    /// Repeats a request as `policy` says, until it goes well or is overtaken.
    func repeating<Value: Sendable>(
        _ policy: Retry,
        _ mine: Int,
        _ request: () async throws -> Value
    ) async throws -> Value {
        var attempt = 1
        while true {
            do {
                return try await request()
            } catch {
                let random = Double.random(in: 0...1)
                guard generation == mine,
                    let seconds = policy.pause(after: attempt, error, random: random)
                else { throw error }
                let resting = Task { [timing] in _ = try? await timing.pause(seconds) }
                nap = resting
                await resting.value
                guard generation == mine else { throw error }
                attempt += 1
            }
        }
    }

    /// Waits for something on which nothing hangs: a sign-in or sign-out lets go of it, whether it
    /// comes to an end or not. An answer to a registration is never let go of: it may tell a secret.
    func loosely<Value: Sendable>(
        _ work: @escaping @Sendable () async throws -> Value
    ) async throws -> Value {
        defer { letGo = nil }
        return try await withCheckedThrowingContinuation { continuation in
            let first = First(continuation)
            letGo = { first.tell(.failure(CancellationError())) }
            Task {
                do {
                    first.tell(.success(try await work()))
                } catch {
                    first.tell(.failure(error))
                }
            }
        }
    }

    /// Waits for work, but not longer than so many seconds; says whether it was done by then.
    private func within(
        _ seconds: TimeInterval, _ work: @escaping @Sendable () async -> Void
    ) async -> Bool {
        let isDone = try? await withCheckedThrowingContinuation { continuation in
            let first = First<Bool>(continuation)
            let limit = Task {
                try? await Task.sleep(nanoseconds: UInt64(seconds * 1_000_000_000))
                first.tell(.success(false))
            }
            Task {
                await work()
                first.tell(.success(true))
                limit.cancel()
            }
        }
        return isDone ?? false
    }
}

/// Tells the first of several results.
private final class First<Value: Sendable>: @unchecked Sendable {
    private let lock = NSLock()
    private var continuation: CheckedContinuation<Value, any Error>?

    init(_ continuation: CheckedContinuation<Value, any Error>) {
        self.continuation = continuation
    }

    func tell(_ result: Result<Value, any Error>) {
        let waiting = lock.withLock {
            defer { continuation = nil }
            return continuation
        }
        waiting?.resume(with: result)
    }
}
