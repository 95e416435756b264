package handbell.device

import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObjectBuilder
import kotlinx.serialization.json.addJsonObject
import kotlinx.serialization.json.buildJsonArray
import kotlinx.serialization.json.buildJsonObject
import kotlinx.serialization.json.put
import kotlinx.serialization.json.putJsonObject
import java.net.URLEncoder
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale
import java.util.TimeZone

/** What the server is told of this device. */
internal data class Device(
    val id: String,
    val address: PushAddress?,
    val environment: Environment,
    val facts: DeviceFacts,
)

/**
 * What the server tells of a session. A secret is told once, so an answer is taken whatever else is
 * strange about it; it is null where the device has it already.
 */
internal class Told(val id: Long, val standing: Standing, val secret: String?)

/** The requests of a device, as docs/api.md of the server lists them; each is one attempt. */
internal class Wire(configuration: Configuration, private val transport: Transport) {
    private val sessions = "${configuration.server}/v1/apps/${escaped(configuration.app)}/sessions"

    /** Says whose device it is. `speaker` is the session of the sign-in before. */
    fun register(device: Device, who: Pair<String, String>, speaker: Session?): Told =
        told(described(device) { put(who.first, who.second) }, speaker)

    /** Says that the device is still there, and what is new of it. */
    // By POST: the HTTP client of a JVM knows no PATCH.
    fun refresh(device: Device, session: Session): Told = told(described(device) {}, session)

    fun close(session: Session) {
        val answer = send("DELETE", "/${session.id}", null, session.secret)
        // A page that somebody else puts in between is 200, and closes nothing.
        if (answer.status != 204) throw Problem.strange(answer.status)
    }

    /** Reports, and says for each whether the session received that notification. */
    fun report(reports: List<Report>, session: Session): List<Boolean> {
        val body = buildJsonArray {
            for (report in reports) {
                addJsonObject {
                    put("notification_id", report.notification)
                    put("event", report.event.name.lowercase())
                    put("at", instant(report.at))
                }
            }
        }
        val answer = send("POST", "/${session.id}/receipts/list", body, session.secret, 5)
        return runCatching { lenient.decodeFromString<Noted>(answer.body).noted }.getOrNull()
            ?: throw Problem.strange(answer.status)
    }

    private fun described(device: Device, more: JsonObjectBuilder.() -> Unit): JsonElement =
        buildJsonObject {
            put("platform", "android")
            put("environment", device.environment.word)
            put("device_id", device.id)
            when (val address = device.address) {
                is PushAddress.Fcm -> put("device_token", address.token)
                is PushAddress.WebPush ->
                    putJsonObject("subscription") {
                        put("endpoint", address.endpoint)
                        putJsonObject("keys") {
                            put("p256dh", address.p256dh)
                            put("auth", address.auth)
                        }
                    }
                null -> Unit
            }
            device.facts.device?.let { put("device", it) }
            device.facts.osVersion?.let { put("os_version", it) }
            device.facts.appVersion?.let { put("app_version", it) }
            device.facts.locale?.let { put("locale", it) }
            device.facts.timeZone?.let { put("time_zone", it) }
            more()
        }

    private fun told(body: JsonElement, speaker: Session?): Told {
        val answer = send("POST", "", body, speaker?.secret)
        val said = runCatching { lenient.decodeFromString<Registration>(answer.body) }.getOrNull()
        return said?.let { Told(it.id, Standing.read(it.status), it.secret) }
            ?: throw Problem.strange(answer.status)
    }

    private fun send(
        method: String,
        path: String,
        body: JsonElement?,
        secret: String?,
        seconds: Int = 20,
    ): HttpAnswer {
        val headers = buildMap {
            put("Accept", "application/json")
            if (body != null) put("Content-Type", "application/json")
            if (secret != null) put("Authorization", "Bearer $secret")
        }
        val request = HttpRequest(method, sessions + path, headers, body?.toString(), seconds)
        val answer = transport.send(request)
        if (answer.status !in 200..299) throw Problem.read(answer)
        return answer
    }

    private fun escaped(part: String): String = URLEncoder.encode(part, "UTF-8").replace("+", "%20")

    private fun instant(at: Long): String {
        val format = SimpleDateFormat("yyyy-MM-dd'T'HH:mm:ss.SSS'Z'", Locale.ROOT)
        format.timeZone = TimeZone.getTimeZone("UTC")
        return format.format(Date(at))
    }
}

@Serializable
private class Registration(val id: Long, val status: String? = null, val secret: String? = null)

@Serializable
private class Noted(val noted: List<Boolean>)
