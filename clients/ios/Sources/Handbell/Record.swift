import Foundation

/// A session of this device: its id, and the secret by which the device speaks for it.
struct Session: Codable, Sendable, Equatable {
    let id: Int
    let secret: String
}

/// A sign-in that the server has not answered yet.
enum Waiting: Codable, Sendable, Equatable {
    case mail(String)
    case fresh
}

/// Everything that is kept of this device's sessions, and the rules by which it changes.
///
/// A secret that was told stays in the record until the server says that it is void: it moves from
/// one place to another, and never just disappears.
struct Record: Codable, Sendable, Equatable {
    /// The installation of the app that wrote it.
    var installation: String?
    /// The session that is proven, or was when the server last spoke of it.
    private(set) var session: Session?
    /// The session of the last sign-in, as long as it is not proven.
    private(set) var candidate: Session?
    /// Sessions that are over on this device, and that the server is still to be told of.
    private(set) var leaving: [Session] = []
    /// Who has signed in and is not registered yet.
    private(set) var waiting: Waiting?
    /// Counts sign-ins and sign-outs, so that an answer to an earlier one is known for late.
    private(set) var turn = 0
    /// Whether a registration got no answer, so that there may be a session without a known secret.
    private(set) var isInDoubt = false

    /// How many sessions that the server could not be told of are remembered at most.
    static let mostLeaving = 50

    init() {}

    /// Whether somebody is registered, proven or not.
    var isRegistered: Bool { session != nil || candidate != nil }

    /// The session that a new sign-in speaks for: the one of the sign-in before it.
    var speaker: Session? { candidate ?? session }

    /// Whether a start of the app or its coming to the front has something to do.
    var hasWork: Bool { candidate != nil || !leaving.isEmpty || waiting != nil }

    /// The sessions that are to be refreshed, that of the last sign-in first.
    var open: [Session] { [candidate, session].compactMap { $0 } }

    /// Begins a sign-in, which waits for its registration; nil for one that leaves nothing to wait.
    mutating func begin(_ waiting: Waiting?) {
        turn += 1
        self.waiting = waiting
    }

    /// Takes a session that the server has just told of. One that is not proven yet leaves the
    /// proven one in its place.
    mutating func admit(_ new: Session, _ standing: Standing) {
        if standing.isProven {
            promote(new)
        } else if new.secret != session?.secret {
            leave(candidate, for: new)
            candidate = new
        }
    }

    /// Notes what the server answered to a refresh. False when the session that was asked for is
    /// none of the open ones any more: then nothing changes.
    mutating func confirm(_ asked: Session, as known: Session, _ standing: Standing) -> Bool {
        if asked == candidate {
            candidate = known
            if standing.isProven { promote(known) }
            return true
        }
        if asked == session {
            session = known
            return true
        }
        return false
    }

    /// Notes that the server knows nothing of a session. False when it is none of the open ones.
    mutating func forget(_ asked: Session) -> Bool {
        if asked == candidate {
            candidate = nil
        } else if asked == session {
            session = nil
        } else {
            return false
        }
        return true
    }

    /// Ends every session on this device, and whatever waits.
    mutating func depart() {
        begin(nil)
        for one in open { retire(one) }
        session = nil
        candidate = nil
    }

    /// Lets a session be closed at the server.
    mutating func retire(_ one: Session) {
        guard !leaving.contains(where: { $0.secret == one.secret }) else { return }
        leaving.append(one)
        leaving.removeFirst(max(0, leaving.count - Record.mostLeaving))
    }

    /// Notes that the server has been told of the end of a session.
    mutating func closed(_ one: Session) {
        leaving.removeAll { $0.secret == one.secret }
    }

    /// Notes that nobody waits any more.
    mutating func stopWaiting() { waiting = nil }

    /// Notes that a registration was sent and not answered.
    mutating func doubt() { isInDoubt = true }

    /// Notes that the app has been told of the doubt.
    mutating func settle() { isInDoubt = false }

    private mutating func promote(_ new: Session) {
        // Whatever else was registered with the device's token lost it to this session.
        isInDoubt = false
        leave(candidate, for: new)
        leave(session, for: new)
        session = new
        candidate = nil
    }

    private mutating func leave(_ former: Session?, for new: Session) {
        // The same session under a new secret: the former one is void already.
        guard let former, former.secret != new.secret, former.id != new.id else { return }
        retire(former)
    }
}

extension Record {
    private enum Key: String, CodingKey {
        case installation, session, candidate, leaving, waiting, turn, isInDoubt
    }

    init(from decoder: any Decoder) throws {
        let members = try decoder.container(keyedBy: Key.self)
        installation = try members.decodeIfPresent(String.self, forKey: .installation)
        candidate = try members.decodeIfPresent(Session.self, forKey: .candidate)
        leaving = try members.decodeIfPresent([Session].self, forKey: .leaving) ?? []
        waiting = try members.decodeIfPresent(Waiting.self, forKey: .waiting)
        turn = try members.decodeIfPresent(Int.self, forKey: .turn) ?? 0
        isInDoubt = try members.decodeIfPresent(Bool.self, forKey: .isInDoubt) ?? false
        // Version 0.1 kept the session alone.
        session =
            try members.decodeIfPresent(Session.self, forKey: .session)
            ?? (try? Session(from: decoder))
    }
}

/// Reads and writes the record, and notices that the app was installed anew.
struct Vault: Sendable {
    let secrets: any Storage
    let installation: any Storage

    /// Returns the record of this installation.
    ///
    /// The keychain survives when the app is deleted. What a former installation has left there
    /// belongs to whoever used the app then: those sessions are over, and nobody waits.
    func load() throws -> Record {
        // Where the keychain cannot be read nothing is decided, whatever the other place says.
        let found = try peek()
        var record = found ?? Record()
        let marker = try installation.read().map { String(decoding: $0, as: UTF8.self) }
        if let marker, marker == record.installation { return record }
        let isOfVersion01 = record.installation == nil
        if !isOfVersion01 { record.depart() }
        record.installation = marker ?? UUID().uuidString
        if found != nil { try save(record) }
        if marker == nil {
            try installation.write(Data((record.installation ?? "").utf8))
        }
        return record
    }

    /// Returns the record as it stands; nil when there is none. What cannot be understood counts as
    /// none.
    func peek() throws -> Record? {
        try secrets.read().flatMap { try? JSONDecoder().decode(Record.self, from: $0) }
    }

    func save(_ record: Record) throws {
        try secrets.write(JSONEncoder().encode(record))
    }
}
