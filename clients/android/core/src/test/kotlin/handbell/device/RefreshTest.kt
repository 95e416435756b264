package handbell.device

import java.net.UnknownHostException
import kotlin.test.Test
import kotlin.test.assertEquals

class RefreshTest {
    /** When the app comes to the front the server is asked where there is a reason, else not. */
    @Test
    fun itAsksWhereThereIsAReason() = test {
        var isThere = true
        val phone = Phone {
            if (!isThere) throw UnknownHostException()
            told(7, "active", "hbs_one".takeIf { _ -> it.isRegistration })
        }
        phone.device.refreshIfNeeded()
        assertEquals(0, phone.server.asked.size)
        phone.device.refresh(ADDRESS)
        phone.device.signIn(Identity.Token("signed"))
        phone.device.refreshIfNeeded()
        assertEquals(1, phone.server.asked.size)
        phone.facts = phone.facts.copy(locale = "de-CH")
        phone.device.refreshIfNeeded()
        assertEquals("de-CH", phone.server.asked.last().said("locale"))
        phone.device.refreshIfNeeded()
        assertEquals(2, phone.server.asked.size)
        phone.now += 3_600_000
        isThere = false
        phone.device.refreshIfNeeded()
        assertEquals(6, phone.server.asked.size)
        isThere = true
        phone.device.refreshIfNeeded()
        assertEquals(7, phone.server.asked.size)
    }
}
