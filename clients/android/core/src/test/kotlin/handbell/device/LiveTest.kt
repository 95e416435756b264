package handbell.device

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.Assume.assumeTrue
import org.junit.Before
import java.net.HttpURLConnection
import java.net.URL
import java.net.URLEncoder
import java.security.KeyPairGenerator
import java.util.Base64
import java.util.UUID
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue

/**
 * The whole way, against a running `handbell serve --twin`.
 *
 * `HANDBELL_LIVE` names the back end that stands beside it; the project's tests start both.
 */
class LiveTest {
    private val backend by lazy { Backend(System.getenv("HANDBELL_LIVE")) }

    @Before
    fun aServerRuns() {
        assumeTrue("No server is running: HANDBELL_LIVE names none", System.getenv("HANDBELL_LIVE") != null)
    }

    /** With the back end's token: registered at once, reached, opened, and after the sign-out not. */
    @Test
    fun fromTheSignInToTheSignOut() = test {
        backend.ask("proof", "way" to "token")
        val (address, mail) = backend.phone() to person()
        val storage = MemoryStorage()
        val source = IdentitySource { backend.ask("identity", "mail" to mail)["token"] }
        assertNull(device(storage, source).signIn(Identity.Fresh))

        val device = device(storage, source)
        assertEquals(Standing.ACTIVE, device.refresh(address))
        val sent = backend.ask("send", "mail" to mail)
        assertEquals("1", sent["arrived"])
        device.report(Receipt.OPENED, PushMessage(mapOf(PushMessage.ID to sent.getValue("id"))))
        assertEquals("1", backend.ask("opened", "notification" to sent.getValue("id"))["opened"])

        assertEquals(Standing.ACTIVE, device.refresh(address))
        assertEquals(SignOut.CLOSED, device.signOut())
        assertEquals(listOf("closed"), statuses(mail))
        assertEquals("0", backend.ask("send", "mail" to mail)["arrived"])
    }

    /** A new token of the push service takes the place of the former one, and is reached. */
    @Test
    fun aNewTokenIsTold() = test {
        backend.ask("proof", "way" to "token")
        val mail = person()
        val device = device(MemoryStorage(), { backend.ask("identity", "mail" to mail)["token"] })
        device.refresh(backend.phone())
        device.signIn(Identity.Fresh)
        assertEquals(Standing.ACTIVE, device.refresh(backend.phone()))
        assertEquals(listOf("active"), statuses(mail))
        assertEquals("1", backend.ask("send", "mail" to mail)["arrived"])
    }

    /**
     * A second sign-in by mail leaves the first user's session until its link is opened; then it is
     * the second's phone alone.
     */
    @Test
    fun aPhoneChangesHandsByMail() = test {
        backend.ask("proof", "way" to "link")
        val (one, two) = person() to person()
        val device = device(MemoryStorage())
        device.refresh(backend.phone())
        assertEquals(Standing.PENDING, device.signIn(Identity.Mail(one)))
        open(one)
        assertEquals(Standing.ACTIVE, device.refresh())

        assertEquals(Standing.PENDING, device.signIn(Identity.Mail(two)))
        assertEquals("1", backend.ask("send", "mail" to one)["arrived"])
        open(two)
        assertEquals(Standing.ACTIVE, device.refresh())
        assertEquals("0", backend.ask("send", "mail" to one)["arrived"])
        assertEquals(SignOut.CLOSED, device.signOut())
        assertEquals(setOf("closed"), (statuses(one) + statuses(two)).toSet())
    }

    /** A session of the back end's key is adopted, in the place of the one before. */
    @Test
    fun aSessionOfTheBackEndIsAdopted() = test {
        backend.ask("proof", "way" to "token")
        val (address, mail, other) = Triple(backend.phone(), person(), person())
        val device = device(MemoryStorage())
        device.refresh(address)
        device.signIn(Identity.Token(backend.ask("identity", "mail" to other).getValue("token")))
        val made = backend.ask("register", "mail" to mail, "token" to address.token, "platform" to "android")
        assertEquals(Standing.ACTIVE, device.adopt(made.getValue("id").toLong(), made.getValue("secret")))
        assertThrows(HandbellException.NotASession::class) { device.adopt(1, "hbs_nothing") }
        assertEquals(listOf("active", "closed"), statuses(mail) + statuses(other))
    }

    /** A phone without Google's services hands over an endpoint, and is its user's as any other. */
    @Test
    fun anEndpointIsRegistered() = test {
        backend.ask("proof", "way" to "token")
        val mail = person()
        val device = device(MemoryStorage(), { backend.ask("identity", "mail" to mail)["token"] })
        val endpoint = backend.ask("phone", "platform" to "web").getValue("token")
        device.refresh(PushAddress.WebPush(endpoint, publicKey(), encoded(ByteArray(16) { 7 })))
        assertEquals(Standing.ACTIVE, device.signIn(Identity.Fresh))
        assertEquals(Standing.ACTIVE, device.refresh())
        assertEquals(SignOut.CLOSED, device.signOut())
        assertEquals(listOf("closed"), statuses(mail))
    }

    /** A network's sign-in page redirects what it gets: none of it is taken for the server's answer. */
    @Test
    fun noRedirectionIsFollowed() = test {
        backend.ask("proof", "way" to "token")
        val (address, mail, storage) = Triple(backend.phone(), person(), MemoryStorage())
        val device = device(storage, { backend.ask("identity", "mail" to mail)["token"] })
        device.refresh(address)
        device.signIn(Identity.Fresh)
        val captured = device(storage, server = backend.url)
        val problem = assertThrows(Problem::class) { captured.refresh(address) } as Problem
        assertEquals(307 to Problem.UNKNOWN, problem.status to problem.code)
        assertEquals(SignOut.DEFERRED, captured.signOut())
        assertEquals(listOf("active"), statuses(mail))
        assertNull(device(storage).refresh(address))
        assertEquals(listOf("closed"), statuses(mail))
    }

    private fun device(
        storage: Storage,
        source: IdentitySource? = null,
        server: String = backend.ask("server").getValue("url"),
    ): HandbellDevice {
        val configuration = Configuration(server, "TEAM123456.com.sample.myapp", Environment.TWIN)
        val facts = DeviceFacts("Google Pixel 9", "16", "2.1", "fr-CH", "Europe/Zurich")
        return HandbellDevice(configuration, storage, { facts }, source)
    }

    /** Returns the public half of a new key on P-256, as a distributor tells it. */
    private fun publicKey(): String {
        val pair = KeyPairGenerator.getInstance("EC").apply { initialize(256) }.generateKeyPair()
        val spki = pair.public.encoded
        return encoded(spki.copyOfRange(spki.size - 65, spki.size))
    }

    private fun encoded(bytes: ByteArray): String =
        Base64.getUrlEncoder().withoutPadding().encodeToString(bytes)

    private fun person(): String = "${UUID.randomUUID()}@example.com"

    private fun open(mail: String) {
        assertEquals("200", backend.ask("open", "mail" to mail)["status"])
    }

    private fun statuses(mail: String): List<String> =
        backend.ask("sessions", "mail" to mail).getValue("statuses").split(" ").filter(String::isNotEmpty)
}

/** The app's own back end, as `tests/device_backend.py` plays it. */
private class Backend(val url: String) {
    fun ask(name: String, vararg given: Pair<String, String>): Map<String, String> {
        val query = given.joinToString("&") { (key, value) -> "$key=${URLEncoder.encode(value, "UTF-8")}" }
        val connection = URL("$url/$name?$query").openConnection() as HttpURLConnection
        val isFine = connection.responseCode == 200
        val text = (if (isFine) connection.inputStream else connection.errorStream).reader().readText()
        assertTrue(isFine, "$name: $text")
        val answer = Json.parseToJsonElement(text) as JsonObject
        return answer.mapNotNull { (key, value) -> (value as? JsonPrimitive)?.let { key to it.content } }.toMap()
    }

    /** Makes a virtual Android phone, and returns its registration token. */
    fun phone(): PushAddress.Fcm = PushAddress.Fcm(ask("phone", "platform" to "android").getValue("token"))
}
