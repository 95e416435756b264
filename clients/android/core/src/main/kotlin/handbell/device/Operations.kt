package handbell.device

import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import java.io.IOException

/** What is done in turn. Between an answer and what it changes nothing else comes in between. */
internal class Operations(
    private val configuration: Configuration,
    private val wire: Wire,
    private val vault: Vault,
    private val turns: Turns,
    private val source: IdentitySource?,
    private val facts: () -> DeviceFacts,
    private val timing: Timing,
) {
    /** The address that the push service told last. */
    @Volatile
    var address: PushAddress? = null

    /** A sign-in with a token that serves once, which cannot wait for longer than the app runs. */
    @Volatile
    var waitingToken: String? = null
        private set

    /** What the server was told of the device last, and when. */
    @Volatile
    private var told: Pair<Device, Long>? = null
    private val reporting = Mutex()

    /** Notes a sign-in, before anything is sent, and returns its number. */
    fun begin(identity: Identity): Int {
        if (identity == Identity.Fresh && source == null) throw HandbellException.NoIdentity()
        val waiting =
            when (identity) {
                is Identity.Mail -> Waiting.Mail(identity.address)
                is Identity.Token -> null
                Identity.Fresh -> Waiting.Fresh
            }
        return turns.overtake {
            waitingToken = (identity as? Identity.Token)?.token
            // A place that can't be written is told before the server tells a secret.
            vault.change { it.copy(waiting = waiting) }
        }
    }

    /** Notes a session of the back end, and returns the number of this sign-in. */
    fun beginAdoption(session: Session): Int =
        turns.overtake {
            waitingToken = null
            vault.change { it.copy(waiting = null).admit(session, Standing.UNKNOWN) }
        }

    /** Notes a sign-out. */
    fun depart() {
        turns.overtake {
            waitingToken = null
            vault.change(Record::depart)
        }
    }

    /** Says whether the server knows of every end of a session; a doubt is told once. */
    fun isAllTold(): Boolean =
        try {
            val record = vault.record()
            if (record.isInDoubt) vault.change { it.copy(isInDoubt = false) }
            record.leaving.isEmpty() && !record.isInDoubt
        } catch (_: HandbellException.Storage) {
            false
        }

    /** Whether the server may know something old, or something waits. */
    fun isOutOfDate(): Boolean {
        val record = vault.record()
        if (record.hasWork || waitingToken != null) return true
        if (!record.isRegistered) return false
        // Before the first address of this start it does not count: its refresh is near.
        val (device, at) = told ?: return address != null
        return device != describe() || timing.now() - at !in 0 until timing.fresh
    }

    suspend fun register(identity: Identity, mine: Int): Standing {
        closeLeaving(Retry.ONCE)
        turns.check(mine)
        val speaker = vault.record().speaker
        val policy = if (identity is Identity.Mail) Retry.MAILING else Retry.STANDARD
        val answer =
            try {
                turns.repeating(policy, mine) { ask(identity, speaker, mine) }
            } catch (error: Exception) {
                turns.ifCurrent(mine) { registrationFailed(error, identity) }
                turns.check(mine)
                throw error
            }
        val secret = answer.secret ?: speaker?.secret
        if (secret == null) {
            vault.change { it.copy(isInDoubt = true) }
            throw HandbellException.NotASession()
        }
        val session = Session(answer.id, secret)
        val counts =
            turns.ifCurrent(mine) {
                waitingToken = null
                vault.change { it.admit(session, answer.standing).copy(waiting = null) }
            }
        if (!counts) {
            // One that was there before is where the sign-out or sign-in has put it.
            if (answer.secret != null) {
                vault.change { it.retire(session) }
                closeLeaving(Retry.BRIEF)
            }
            throw HandbellException.Overtaken()
        }
        told = describe() to timing.now()
        closeLeaving(Retry.ONCE)
        return answer.standing
    }

    suspend fun adopt(secret: String, mine: Int): Standing? {
        turns.check(mine)
        val standing = refresh()
        if (vault.record().open.none { it.secret == secret }) {
            turns.check(mine)
            throw HandbellException.NotASession()
        }
        return standing
    }

    suspend fun refresh(): Standing? {
        val mine = turns.current
        closeLeaving(Retry.ONCE)
        val identity = waitingIdentity()
        if (address != null && identity != null) {
            try {
                return register(identity, mine)
            } catch (_: HandbellException.NoIdentity) {
                // Who waited has signed out of the app since.
            }
        }
        var standing: Standing? = null
        for (session in vault.record().open) {
            turns.check(mine)
            if (session !in vault.record().open) continue
            val answered = refresh(session, mine)
            standing = standing ?: answered
        }
        closeLeaving(Retry.ONCE)
        handIn(mine)
        return standing
    }

    /** Tells the server of the sessions that are over here. Those that it can't be told of wait. */
    suspend fun closeLeaving(policy: Retry) {
        val mine = turns.current
        for (session in vault.record().leaving) {
            try {
                turns.repeating(policy, mine) { wire.close(session) }
            } catch (problem: Problem) {
                // Where the server has ended it already, there is nothing to tell.
                if (!problem.isGone) continue
            } catch (_: IOException) {
                return
            }
            vault.change { it.closed(session) }
        }
    }

    /** Notes a receipt and hands in those that wait. */
    suspend fun report(receipt: Receipt, notification: String) {
        try {
            if (notification.length > MOST_ID || !vault.record().isRegistered) return
            vault.change { it.note(Report(notification, receipt, timing.now())) }
            handIn(turns.current)
        } catch (_: HandbellException) {
            // It waits, or is of a user who has signed out.
        }
    }

    private suspend fun handIn(mine: Int) =
        reporting.withLock {
            val record = vault.record()
            var left = record.reports
            // One may have been sent to the other session: a link was opened just now.
            for (session in record.open.reversed()) {
                if (left.isEmpty()) break
                try {
                    val noted =
                        turns.repeating(Retry.BRIEF, mine) {
                            turns.loosely(mine) { wire.report(left, session) }
                        }
                    left = left.filterIndexed { place, _ -> noted.getOrNull(place) != true }
                } catch (problem: Problem) {
                    if (!problem.isRefusal) return@withLock
                } catch (_: IOException) {
                    return@withLock
                }
            }
            if (record.reports.isNotEmpty()) vault.change { it.copy(reports = it.reports - record.reports) }
        }

    /** Refreshes one session, and returns what the server says of it; null when it is no more. */
    private suspend fun refresh(session: Session, mine: Int): Standing? {
        val device = describe()
        try {
            val answer =
                turns.repeating(Retry.STANDARD, mine) {
                    turns.loosely(mine) { wire.refresh(device, session) }
                }
            val known = Session(answer.id, session.secret)
            settle(mine) { it.confirm(session, known, answer.standing) }
            told = device to timing.now()
            return answer.standing
        } catch (problem: Problem) {
            if (problem.isGone) settle(mine) { it.forget(session) }
            // With a proof that is wanted, somebody else has proven this device's address since. The
            // secret is kept, to sign out.
            if (problem.isGone || problem.wantsProof) return null
            turns.check(mine)
            throw problem
        }
    }

    /** Changes the record by an answer, which counts only for who was not overtaken. */
    private fun settle(mine: Int, work: (Record) -> Record?) {
        val counts = vault.change(work)
        turns.check(mine)
        if (!counts) throw HandbellException.Overtaken()
    }

    private suspend fun ask(identity: Identity, speaker: Session?, mine: Int): Told {
        val who =
            when (identity) {
                is Identity.Mail -> "mail" to identity.address
                is Identity.Token -> "identity_token" to identity.token
                Identity.Fresh -> "identity_token" to fresh(mine)
            }
        try {
            return wire.register(describe(), who, speaker)
        } catch (error: Exception) {
            if (Retry.mayHaveArrived(error)) vault.change { it.copy(isInDoubt = true) }
            throw error
        }
    }

    private suspend fun fresh(mine: Int): String {
        val asked = source ?: throw HandbellException.NoIdentity()
        return turns.loosely(mine) { asked.token() } ?: throw HandbellException.NoIdentity()
    }

    /** Returns who waits to be registered. */
    private fun waitingIdentity(): Identity? =
        waitingToken?.let(Identity::Token)
            ?: when (val waiting = vault.record().waiting) {
                is Waiting.Mail -> Identity.Mail(waiting.address)
                Waiting.Fresh -> Identity.Fresh.takeIf { source != null }
                null -> null
            }

    private fun registrationFailed(error: Exception, identity: Identity) {
        // What the server has refused is refused the next time as well; a back end may bring a better
        // token then.
        val isRefused = error is Problem && error.isRefusal && identity != Identity.Fresh
        if (isRefused || error is HandbellException.NoIdentity) {
            waitingToken = null
            vault.change { it.copy(waiting = null) }
        }
    }

    private fun describe(): Device =
        Device(vault.record().deviceId, address, configuration.environment, facts())

    private companion object {
        /** A notification's id is shorter; the server refuses the whole list for a longer one. */
        const val MOST_ID = 100
    }
}
