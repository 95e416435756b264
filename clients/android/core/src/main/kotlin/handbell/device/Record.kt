package handbell.device

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import java.io.IOException
import java.util.UUID

/** A session of this device: its id, and the secret by which the device speaks for it. */
@Serializable
internal data class Session(val id: Long, val secret: String)

/** A sign-in that the server has not answered yet. */
@Serializable
internal sealed interface Waiting {
    @Serializable
    @SerialName("mail")
    data class Mail(val address: String) : Waiting

    @Serializable
    @SerialName("fresh")
    data object Fresh : Waiting
}

/** A receipt that the server does not have yet. */
@Serializable
internal data class Report(val notification: String, val event: Receipt, val at: Long)

/**
 * Everything that is kept of this device's sessions, and the rules by which it changes.
 *
 * A secret that was told stays in the record until the server says that it is void: it moves from one
 * place to another, and never just disappears.
 *
 * @property deviceId tells this installation of the app from others, so that the server sends to it
 *   once, whatever the ways that it is reached by
 * @property session the session that is proven, or was when the server last spoke of it
 * @property candidate the session of the last sign-in, as long as it is not proven
 * @property leaving sessions that are over on this device, and that the server is still to be told of
 * @property waiting who has signed in and is not registered yet
 * @property isInDoubt whether a registration got no answer, so that there may be a session without a
 *   known secret
 * @property reports what is still to be reported of notifications
 */
@Serializable
internal data class Record(
    val deviceId: String,
    val session: Session? = null,
    val candidate: Session? = null,
    val leaving: List<Session> = emptyList(),
    val waiting: Waiting? = null,
    val isInDoubt: Boolean = false,
    val reports: List<Report> = emptyList(),
) {
    /** Whether somebody is registered, proven or not. */
    val isRegistered: Boolean get() = session != null || candidate != null

    /** The session that a new sign-in speaks for: the one of the sign-in before it. */
    val speaker: Session? get() = candidate ?: session

    /** Whether a start of the app or its coming to the front has something to do. */
    val hasWork: Boolean
        get() = candidate != null || leaving.isNotEmpty() || waiting != null || reports.isNotEmpty()

    /** The sessions that are to be refreshed, that of the last sign-in first. */
    val open: List<Session> get() = listOfNotNull(candidate, session)

    /** Takes a session that the server has just told of. An unproven one leaves the proven one alone. */
    fun admit(new: Session, standing: Standing): Record =
        when {
            standing.isProven -> promote(new)
            new.secret == session?.secret -> this
            else -> leave(candidate, new).copy(candidate = new)
        }

    /**
     * Notes what the server answered to a refresh; null when the session that was asked for is none
     * of the open ones any more: then nothing changes.
     */
    fun confirm(asked: Session, known: Session, standing: Standing): Record? =
        when (asked) {
            candidate -> if (standing.isProven) promote(known) else copy(candidate = known)
            session -> copy(session = known)
            else -> null
        }

    /** Notes that the server knows nothing of a session; null when it is none of the open ones. */
    fun forget(asked: Session): Record? =
        when (asked) {
            candidate -> copy(candidate = null)
            session -> copy(session = null, reports = emptyList())
            else -> null
        }

    /** Ends every session on this device, and whatever waits. */
    fun depart(): Record =
        open.fold(this, Record::retire)
            .copy(session = null, candidate = null, waiting = null, reports = emptyList())

    /** Lets a session be closed at the server. */
    fun retire(one: Session): Record =
        if (leaving.any { it.secret == one.secret }) {
            this
        } else {
            copy(leaving = (leaving + one).takeLast(MOST_LEAVING))
        }

    /** Notes that the server has been told of the end of a session. */
    fun closed(one: Session): Record = copy(leaving = leaving.filter { it.secret != one.secret })

    /** Notes what happened to a notification. */
    fun note(report: Report): Record =
        if (reports.any { it.notification == report.notification && it.event == report.event }) {
            this
        } else {
            copy(reports = (reports + report).takeLast(MOST_REPORTS))
        }

    private fun promote(new: Session): Record =
        // Whatever else was registered with the device's address lost it to this session.
        leave(candidate, new).leave(session, new)
            .copy(
                session = new,
                candidate = null,
                isInDoubt = false,
                reports = if (session == null || session.id == new.id) reports else emptyList(),
            )

    private fun leave(former: Session?, new: Session): Record =
        // The same session under a new secret: the former one is void already.
        if (former == null || former.secret == new.secret || former.id == new.id) this else retire(former)

    internal companion object {
        /** How many sessions that the server could not be told of are remembered at most. */
        const val MOST_LEAVING = 50

        /** How many receipts wait at most; the server takes that many at once. */
        const val MOST_REPORTS = 100
    }
}

/** Reads and writes the record. What can't be written counts, and is written at the next occasion. */
internal class Vault(private val storage: Storage) {
    private var known: Record? = null
    private var isUnsaved = false

    /** Returns the record as it stands. What cannot be understood counts as none. */
    @Synchronized
    fun record(): Record {
        if (isUnsaved) known?.let(::save)
        return known ?: load()
    }

    /** Changes the record; null leaves it as it is. Says whether it has changed. */
    @Synchronized
    fun change(work: (Record) -> Record?): Boolean {
        // Where it can't be written it is changed as it was known last: a secret is told only once.
        val before = known ?: load()
        val after = work(before) ?: return false
        save(after)
        return true
    }

    private fun load(): Record {
        val text = attempt { storage.read() }
        val read = text?.let { runCatching { lenient.decodeFromString<Record>(it) }.getOrNull() }
        return (read ?: Record(deviceId = UUID.randomUUID().toString())).also { known = it }
    }

    private fun save(record: Record) {
        known = record
        isUnsaved = true
        attempt { storage.write(lenient.encodeToString(Record.serializer(), record)) }
        isUnsaved = false
    }

    private fun <T> attempt(work: () -> T): T =
        try {
            work()
        } catch (error: IOException) {
            throw HandbellException.Storage(error)
        }
}
