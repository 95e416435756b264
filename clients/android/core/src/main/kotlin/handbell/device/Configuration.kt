package handbell.device

import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

/**
 * Where the send server is, and which app this is.
 *
 * @property server the server's public address, such as `https://push.example.com`
 * @property app the app's id on the server
 * @property environment where this build's addresses live
 */
public class Configuration(
    server: String,
    public val app: String,
    public val environment: Environment = Environment.PRODUCTION,
) {
    public val server: String = server.trimEnd('/')
}

/** Where an address lives. */
public enum class Environment(internal val word: String) {
    PRODUCTION("production"),

    /** With the virtual phones of `handbell serve --twin`. */
    TWIN("twin"),
}

/** Where a push service reaches this installation of the app. */
@Serializable
public sealed interface PushAddress {
    /** What Firebase Cloud Messaging told: the registration token. */
    @Serializable
    @SerialName("fcm")
    public data class Fcm(public val token: String) : PushAddress

    /** What a UnifiedPush distributor told: an endpoint with the keys that pushes are encrypted for. */
    @Serializable
    @SerialName("webpush")
    public data class WebPush(
        public val endpoint: String,
        public val p256dh: String,
        public val auth: String,
    ) : PushAddress
}

/** How the app says whose device this is. */
public sealed interface Identity {
    /**
     * The user's mail address. The server mails a link to it, and until the link is opened nothing is
     * sent to this device.
     */
    public data class Mail(public val address: String) : Identity

    /**
     * A token that the app's own back end has signed for the signed-in user. It serves once, for a
     * few minutes, so a sign-in with it that has to wait does not survive a restart of the app.
     */
    public data class Token(public val token: String) : Identity

    /**
     * A token that the [IdentitySource] brings when it is needed, anew for each attempt. Such a
     * sign-in may wait as long as it has to.
     */
    public data object Fresh : Identity
}

/**
 * Brings a token that the app's own back end has just signed for the signed-in user; null when nobody
 * is signed in. An [java.io.IOException] of it counts as a network that is not there. It must not
 * wait for the [HandbellDevice] that waits for it.
 */
public fun interface IdentitySource {
    public suspend fun token(): String?
}

/** What the server says of this device. */
public enum class Standing {
    /** The link that was mailed is not opened yet. */
    PENDING,

    /** Notifications arrive. */
    ACTIVE,

    /** The push service refuses the address; the next start brings a new one. */
    QUARANTINED,

    /** The device was thought gone, or logged out. */
    CLOSED,

    /** A word of a newer server. The session is kept. */
    UNKNOWN,
    ;

    /** Whether the server knows for certain that the device is this person's. */
    internal val isProven: Boolean get() = this == ACTIVE || this == QUARANTINED

    internal companion object {
        fun read(word: String?): Standing = entries.find { it.name.lowercase() == word } ?: UNKNOWN
    }
}

/** What [HandbellDevice.signOut] came to. */
public enum class SignOut {
    /** The server has ended the session: nothing more is sent to this device for this user. */
    CLOSED,

    /**
     * The server could not be told yet. The session is void on this device, and the server is told at
     * the next refresh, sign-in or sign-out; until then it may still send.
     */
    DEFERRED,
}

/** What happened to a notification on this device. */
@Serializable
public enum class Receipt {
    @SerialName("displayed")
    DISPLAYED,

    @SerialName("opened")
    OPENED,
}

/**
 * What a device tells of itself. Only what sending needs; no advertising id and no name.
 *
 * @property device the kind of machine, such as `Google Pixel 9`
 * @property locale the language that the user reads, with its region: `fr-CH`
 * @property timeZone such as `Europe/Zurich`
 */
public data class DeviceFacts(
    public val device: String? = null,
    public val osVersion: String? = null,
    public val appVersion: String? = null,
    public val locale: String? = null,
    public val timeZone: String? = null,
)
