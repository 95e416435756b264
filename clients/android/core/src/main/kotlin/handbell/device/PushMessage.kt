package handbell.device

import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.intOrNull

/**
 * What a notification carries, whether it came as a message or as the extras of a tap.
 *
 * @property data what the message carries beside what is shown: Firebase's `data`
 */
public class PushMessage(public val data: Map<String, String>, shown: Shown? = null) {
    /** What is shown: the notification part of a message, where it has one. */
    public data class Shown(
        public val title: String? = null,
        public val body: String? = null,
        public val imageUrl: String? = null,
        public val channel: String? = null,
        public val tag: String? = null,
        public val count: Int? = null,
    )

    /** What a tap is to open in the app's data. */
    public sealed interface Target {
        /** All records of a data class. */
        public data class DataClass(public val name: String) : Target

        /** One record, by its primary key. */
        public data class Entity(public val dataClass: String, public val primaryKey: String) : Target
    }

    /** What is shown; that of the data where the message has no part for it. */
    public val shown: Shown =
        shown ?: Shown(data["title"], data["body"], data["image_url"], data["channel"], data["tag"])

    /** The notification's id on the server, for receipts. */
    public val id: String? get() = data[ID]

    /** What a tap is to open: a link of the app, or any other address. */
    public val url: String? get() = data["url"]

    /** Whether it only wakes the app, and shows nothing. */
    public val isSilent: Boolean get() = shown.title == null && shown.body == null

    /** What the next one has to have, too, to take the place of this one. */
    public val tag: String? get() = shown.tag ?: id

    /** Whether the app is asked to synchronise its data before it shows the target. */
    public val wantsSynchronisation: Boolean get() = data["dataSynchro"] == "true"

    /** The data class or record that a tap is to open. */
    public val target: Target?
        get() {
            val dataClass = data["dataClass"] ?: return null
            val key = (json(data["entity"]) as? JsonObject)?.get("primaryKey") as? JsonPrimitive
            return key?.contentOrNull?.let { Target.Entity(dataClass, it) } ?: Target.DataClass(dataClass)
        }

    private fun json(text: String?): JsonElement? =
        text?.let { runCatching { lenient.parseToJsonElement(it) }.getOrNull() }

    public companion object {
        /** The member of the data that a notification's id is in. */
        public const val ID: String = "handbell"

        /**
         * Reads a push that a UnifiedPush distributor brought, once it is decrypted; null where it is
         * none of the server's.
         */
        public fun decrypted(text: String): PushMessage? {
            val push = runCatching { lenient.parseToJsonElement(text) }.getOrNull() as? JsonObject
            val told = push?.get("notification") as? JsonObject ?: return null
            val data = (told["data"] as? JsonObject).orEmpty().mapValues { (_, value) -> plain(value) }
            val shown =
                Shown(
                    title = told["title"]?.let(::plain),
                    body = told["body"]?.let(::plain),
                    imageUrl = told["image"]?.let(::plain),
                    tag = told["tag"]?.let(::plain),
                    count = (push["app_badge"] as? JsonPrimitive)?.intOrNull,
                )
            return PushMessage(data, shown)
        }

        /** Returns a text as it is, and anything else as its JSON: Firebase's data are texts, too. */
        private fun plain(value: JsonElement): String =
            if (value is JsonPrimitive && value.isString) value.content else value.toString()
    }
}
