package handbell.device

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue

class PushMessageTest {
    /** What is shown comes of the message's own part, else of its data. */
    @Test
    fun theTextsAreFound() {
        val data = mapOf("handbell" to "abc", "title" to "A", "body" to "B", "image_url" to "https://x/y.png")
        val message = PushMessage(data)
        assertEquals(PushMessage.Shown("A", "B", "https://x/y.png"), message.shown)
        assertEquals("abc", message.tag)
        val part = PushMessage(data, PushMessage.Shown("C", tag = "one"))
        assertEquals("C", part.shown.title)
        assertEquals("one", part.tag)
        assertFalse(part.isSilent)
        assertTrue(PushMessage(mapOf("handbell" to "abc")).isSilent)
    }

    /** What a tap opens: a record, a data class, or nothing of the app's data. */
    @Test
    fun theTargetIsFound() {
        fun target(vararg data: Pair<String, String>) = PushMessage(mapOf(*data)).target
        val employee = "dataClass" to "Employee"
        assertEquals(PushMessage.Target.Entity("Employee", "42"), target(employee, "entity" to """{"primaryKey":"42"}"""))
        assertEquals(PushMessage.Target.Entity("Employee", "42"), target(employee, "entity" to """{"primaryKey":42}"""))
        assertEquals(PushMessage.Target.DataClass("Employee"), target(employee))
        assertEquals(PushMessage.Target.DataClass("Employee"), target(employee, "entity" to "torn {"))
        assertNull(target("url" to "https://example.com"))
    }

    /** A push of UnifiedPush is read as one of Firebase is. */
    @Test
    fun aDecryptedPushIsRead() {
        val message =
            PushMessage.decrypted(
                """{"web_push":8030,"app_badge":3,"notification":{"title":"T","body":"B","navigate":
                "https://x","tag":"c","image":"https://i","data":{"dataClass":"Employee","url":
                "https://x","entity":{"primaryKey":"42"},"handbell":"abc","dataSynchro":true}}}""",
            )
        assertEquals(PushMessage.Shown("T", "B", "https://i", tag = "c", count = 3), message?.shown)
        assertEquals("abc" to "https://x", message?.id to message?.url)
        assertEquals(PushMessage.Target.Entity("Employee", "42"), message?.target)
        assertEquals(true, message?.wantsSynchronisation)
        assertNull(PushMessage.decrypted("no push of ours"))
        assertNull(PushMessage.decrypted("""{"notification":"none"}"""))
    }
}
