package handbell.device

import java.net.UnknownHostException
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class ReportTest {
    private val message = PushMessage(mapOf("handbell" to "abc"))

    /** A receipt is told by the session's secret, with the moment when it happened. */
    @Test
    fun aReceiptIsTold() = test {
        val phone = registered { HttpAnswer(200, "application/json", null, """{"noted":[true]}""") }
        phone.device.report(Receipt.DISPLAYED, message)
        assertEquals("POST /7/receipts/list hbs_one", phone.server.lines.last())
        assertEquals(
            """[{"notification_id":"abc","event":"displayed","at":"2023-11-14T22:13:20.000Z"}]""",
            phone.server.asked.last().body,
        )
        assertFalse("abc" in phone.storage.text.orEmpty())
    }

    /** What can't be told waits, and goes with the next refresh, after a restart too. */
    @Test
    fun aReceiptWaits() = test {
        val first = registered { throw UnknownHostException() }
        first.device.report(Receipt.DISPLAYED, message)
        first.device.report(Receipt.OPENED, message)
        first.device.report(Receipt.OPENED, message)
        val phone =
            first.restarted({
                if ("receipts" in it.path) {
                    HttpAnswer(200, "application/json", null, """{"noted":[true,true]}""")
                } else {
                    told(7, "active")
                }
            })
        phone.device.refresh(ADDRESS)
        val body = phone.server.asked.last().body
        assertEquals(2, body.split("notification_id").size - 1)
        assertFalse("abc" in phone.storage.text.orEmpty())
    }

    /** Nothing is reported for a user who has signed out, and nothing that the server refuses stays. */
    @Test
    fun nothingStays() = test {
        val phone = registered { problem(404, "not-found") }
        phone.device.report(Receipt.OPENED, message)
        assertFalse("abc" in phone.storage.text.orEmpty())
        phone.device.signOut()
        val before = phone.server.asked.size
        phone.device.report(Receipt.OPENED, message)
        phone.device.report(Receipt.OPENED, PushMessage(emptyMap()))
        assertEquals(before, phone.server.asked.size)
    }

    private suspend fun registered(receipts: () -> HttpAnswer): Phone {
        val phone = Phone {
            when {
                "receipts" in it.path -> receipts()
                it.method == "DELETE" -> closed
                else -> told(7, "active", "hbs_one")
            }
        }
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Token("signed"))
        assertTrue(phone.device.isRegistered)
        return phone
    }
}
