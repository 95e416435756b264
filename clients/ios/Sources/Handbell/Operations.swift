import Foundation

// What is done in turn. Between an answer and what it changes nothing else comes in between.
extension HandbellDevice {
    func describe() -> Device {
        Device.current(token: deviceToken, environment: configuration.environment)
    }

    /// Notes a sign-in, before anything is sent, and returns its number.
    func begin(_ identity: Identity) throws -> Int {
        if identity == .fresh && source == nil { throw HandbellError.noIdentity }
        overtake()
        waitingToken = nil
        var record = try record()
        switch identity {
        case .mail(let mail): record.begin(.mail(mail))
        case .fresh: record.begin(.fresh)
        case .token(let token):
            record.begin(nil)
            waitingToken = token
        }
        // A place that can't be written is told before the server tells a secret.
        try keep(record)
        return generation
    }

    func registerNow(_ identity: Identity, _ mine: Int) async throws -> Standing {
        await closeLeaving(.once)
        guard generation == mine else { throw CancellationError() }
        let (turn, speaker) = try (record().turn, record().speaker)
        let answer: Told
        do {
            answer = try await repeating(identity.retry, mine) {
                try await self.ask(identity, speaker)
            }
        } catch {
            try registrationFailed(error, identity, mine)
            throw generation == mine ? error : CancellationError()
        }
        guard let secret = answer.secret ?? speaker?.secret else {
            try change { $0.doubt() }
            throw HandbellError.notASession
        }
        let session = Session(id: answer.id, secret: secret)
        let isOther = (try? record().turn != turn) ?? false
        guard generation == mine, !isOther else {
            // One that was there before is where the sign-out or sign-in has put it.
            if answer.secret != nil {
                try change { $0.retire(session) }
                await closeLeaving(.brief)
            }
            throw CancellationError()
        }
        waitingToken = nil
        try change {
            $0.admit(session, answer.status)
            $0.stopWaiting()
        }
        told = (describe(), Date())
        await closeLeaving(.once)
        return answer.status
    }

    func adoptNow(_ secret: String, _ mine: Int) async throws -> Standing? {
        guard generation == mine else { throw CancellationError() }
        let standing = try await refreshNow()
        guard try record().open.contains(where: { $0.secret == secret }) else {
            throw generation == mine ? HandbellError.notASession : CancellationError()
        }
        return standing
    }

    func refreshNow() async throws -> Standing? {
        let mine = generation
        await closeLeaving(.once)
        if deviceToken != nil, let identity = try waitingIdentity() {
            do {
                return try await registerNow(identity, mine)
            } catch HandbellError.noIdentity {
                // Who waited has signed out of the app since.
            }
        }
        var standing: Standing?
        for session in try record().open {
            guard generation == mine else { throw CancellationError() }
            guard try record().open.contains(session) else { continue }
            let answered = try await refresh(session, mine)
            standing = standing ?? answered
        }
        await closeLeaving(.once)
        return standing
    }

    /// Tells the server of the sessions that are over here. Those that it can't be told of wait.
    func closeLeaving(_ policy: Retry) async {
        let mine = generation
        guard let leaving = try? record().leaving else { return }
        for session in leaving {
            do {
                try await repeating(policy, mine) { try await self.wire.close(session) }
            } catch let problem as Problem where problem.isGone {
                // The server has ended it already.
            } catch is Problem {
                continue
            } catch {
                return
            }
            try? change { $0.closed(session) }
        }
    }

    /// Refreshes one session, and returns what the server says of it; nil when it is no more.
    private func refresh(_ session: Session, _ mine: Int) async throws -> Standing? {
        let device = describe()
        do {
            let answer = try await repeating(.standard, mine) {
                try await self.loosely { [wire = self.wire] in
                    try await wire.refresh(session, with: device)
                }
            }
            let known = Session(id: answer.id, secret: session.secret)
            var counts = false
            try change { counts = $0.confirm(session, as: known, answer.status) }
            guard counts, generation == mine else { throw CancellationError() }
            told = (device, Date())
            return answer.status
        } catch let problem as Problem where problem.isGone {
            var counts = false
            try change { counts = $0.forget(session) }
            guard counts, generation == mine else { throw CancellationError() }
            return nil
        } catch let problem as Problem where problem.wantsProof {
            // Somebody else has proven the device's token since. The secret is kept, to sign out.
            return nil
        } catch {
            throw generation == mine ? error : CancellationError()
        }
    }

    private func ask(_ identity: Identity, _ speaker: Session?) async throws -> Told {
        var device = describe()
        switch identity {
        case .mail(let mail): device.mail = mail
        case .token(let token): device.identityToken = token
        case .fresh:
            guard let source, let token = try await loosely(source) else {
                throw HandbellError.noIdentity
            }
            device.identityToken = token
        }
        do {
            return try await wire.register(device, speaking: speaker)
        } catch {
            if Retry.mayHaveArrived(error) { try change { $0.doubt() } }
            throw error
        }
    }

    /// Returns who waits to be registered.
    private func waitingIdentity() throws -> Identity? {
        if let waitingToken { return .token(waitingToken) }
        switch try record().waiting {
        case .mail(let mail): return .mail(mail)
        case .fresh: return source == nil ? nil : .fresh
        case nil: return nil
        }
    }

    private func registrationFailed(
        _ error: any Error, _ identity: Identity, _ mine: Int
    ) throws {
        guard generation == mine else { return }
        // What the server has refused is refused the next time as well; a back end may bring a
        // better token then.
        let problem = error as? Problem
        let isRefused = problem.map { $0.code != Problem.unknown && !Retry.isPassing($0) } ?? false
        if isRefused && identity != .fresh || error as? HandbellError == .noIdentity {
            waitingToken = nil
            try change { $0.stopWaiting() }
        }
    }
}

extension Identity {
    fileprivate var retry: Retry {
        if case .mail = self { return .mailing }
        return .standard
    }
}
