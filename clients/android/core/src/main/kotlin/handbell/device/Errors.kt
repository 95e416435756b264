package handbell.device

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json

/** What the client cannot do, and what to do about it. */
public sealed class HandbellException(message: String, cause: Throwable? = null) :
    Exception(message, cause) {
    /**
     * Where the session is kept can't be read or written now: before the first unlock, say. It says
     * nothing about whether there is a session.
     */
    public class Storage(cause: Throwable) :
        HandbellException("The session cannot be read or written now: ${cause.message}", cause)

    /** [Identity.Fresh] was used, and there is nobody who brings a token. */
    public class NoIdentity :
        HandbellException("Nobody is signed in, or HandbellDevice was made without an identity source")

    /** What a back end handed over is not a session. */
    public class NotASession :
        HandbellException("A session is the id and the secret that the server answered the back end with")

    /** A later sign-in or sign-out has made this call void. */
    public class Overtaken : HandbellException("A later sign-in or sign-out has overtaken this one")
}

/**
 * What the server found wrong: a problem of RFC 9457.
 *
 * Where something else has answered, a proxy or the page of a hotel's network, [code] is [UNKNOWN]: it
 * says nothing about the session.
 *
 * @property retryAfter how many seconds the server asks to wait before the next attempt
 */
public class Problem(
    public val status: Int,
    public val code: String,
    public val detail: String? = null,
    public val fix: String? = null,
    public val retryAfter: Double? = null,
) : Exception(
    listOfNotNull(detail ?: "The server answered $status ($code)", fix).joinToString(". ") { it.removeSuffix(".") },
) {
    /** Whether the server itself says that it knows no session with this secret. */
    internal val isGone: Boolean
        get() = (status == 401 && code == "unauthorized") || (status == 404 && code == "session-unknown")

    /** Whether the server wants to be shown once more whose device this is. */
    internal val wantsProof: Boolean get() = code == "proof-required"

    /** Whether this is the server's own word, and the same request meets it again. */
    internal val isRefusal: Boolean get() = code != UNKNOWN && !Retry.isPassing(this)

    public companion object {
        /** The code of what Handbell did not say. */
        public const val UNKNOWN: String = "unknown"

        /**
         * Reads an answer that is not a success. Only the server's own problem document, with the
         * status that the answer has, counts as its word.
         */
        internal fun read(answer: HttpAnswer): Problem {
            val media = answer.contentType.orEmpty().substringBefore(';').trim().lowercase()
            val said =
                if (media == "application/problem+json") {
                    runCatching { lenient.decodeFromString<Document>(answer.body) }.getOrNull()
                } else {
                    null
                }
            val own = said?.takeIf { it.status == answer.status }
            return Problem(
                answer.status,
                own?.code ?: UNKNOWN,
                own?.detail,
                own?.fix,
                Retry.seconds(answer.retryAfter),
            )
        }

        internal fun strange(status: Int): Problem =
            Problem(
                status,
                UNKNOWN,
                "Something else than the send server has answered ($status)",
                "Check the server's address and the network",
            )
    }
}

@Serializable
private class Document(
    val status: Int,
    val code: String,
    val detail: String? = null,
    val fix: String? = null,
)

/** Reads what a newer server, or a newer version of the app, has written. */
internal val lenient: Json = Json {
    ignoreUnknownKeys = true
    coerceInputValues = true
}
