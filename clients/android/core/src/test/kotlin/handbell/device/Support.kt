package handbell.device

import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonPrimitive
import java.io.IOException
import java.util.concurrent.CopyOnWriteArrayList
import kotlin.reflect.KClass
import kotlin.test.assertTrue

/** A place in memory, which can be made unreadable or unwritable. */
internal class MemoryStorage(var text: String? = null) : Storage {
    var isReadable = true
    var isWritable = true
    var written: (String) -> Unit = {}

    override fun read(): String? = if (isReadable) text else throw IOException("locked")

    override fun write(text: String) {
        if (!isWritable) throw IOException("locked")
        this.text = text
        written(text)
    }
}

/** A server of a few lines: what it answers is a function of the request. */
internal class Stub(private val answer: (Asked) -> HttpAnswer) : Transport {
    val asked = CopyOnWriteArrayList<Asked>()

    override fun send(request: HttpRequest): HttpAnswer {
        val one = Asked(request)
        asked += one
        return answer(one)
    }

    /** The requests, as a list of `METHOD path secret`. */
    val lines: List<String> get() = asked.map { "${it.method} ${it.path} ${it.secret ?: "-"}" }
}

internal class Asked(request: HttpRequest) {
    val method = request.method
    val path = request.url.substringAfter("/sessions")
    val secret = request.headers["Authorization"]?.removePrefix("Bearer ")
    val body = request.body.orEmpty()

    fun said(name: String): String? =
        (lenient.parseToJsonElement(body) as JsonObject)[name]?.jsonPrimitive?.content

    /** Whether it says whose device it is. */
    val isRegistration: Boolean get() = method == "POST" && path == "" && ("mail" in body || "identity_token" in body)
}

internal fun told(id: Int, status: String, secret: String? = null): HttpAnswer =
    HttpAnswer(
        if (secret == null) 200 else 201,
        "application/json",
        null,
        """{"id":$id,"status":"$status","secret":${secret?.let { "\"$it\"" }},"session":null,"new":1}""",
    )

internal val closed = HttpAnswer(204, null, null, "")

internal fun problem(status: Int, code: String, retryAfter: String? = null): HttpAnswer =
    HttpAnswer(
        status,
        "application/problem+json; charset=utf-8",
        retryAfter,
        """{"type":"about:blank","status":$status,"code":"$code","detail":"It is $code","fix":"Mend it"}""",
    )

internal val ADDRESS = PushAddress.Fcm("a-registration-token")

internal class Phone(
    val storage: MemoryStorage = MemoryStorage(),
    source: IdentitySource? = null,
    signOut: Long = 60_000,
    var facts: DeviceFacts = DeviceFacts(device = "Google Pixel 9", locale = "fr-CH", timeZone = "Europe/Zurich"),
    answer: (Asked) -> HttpAnswer,
) {
    val server = Stub(answer)
    val pauses = CopyOnWriteArrayList<Double>()
    var now = 1_700_000_000_000
    private val timing = Timing(pause = { pauses += it }, random = { 0.0 }, now = { now }, signOut = signOut)
    val device =
        HandbellDevice(
            Configuration("https://push.example.com/", "shop", Environment.TWIN),
            storage,
            source,
            { facts },
            server,
            timing,
        )

    /** The same phone after a restart of the app. */
    fun restarted(answer: (Asked) -> HttpAnswer, source: IdentitySource? = null): Phone =
        Phone(storage, source, facts = facts, answer = answer)
}

internal fun test(work: suspend () -> Unit): Unit = runBlocking { work() }

internal suspend fun assertThrows(kind: KClass<out Throwable>, work: suspend () -> Unit): Throwable {
    val thrown = runCatching { work() }.exceptionOrNull()
    assertTrue(kind.isInstance(thrown), "$thrown is thrown, not $kind")
    return thrown!!
}
