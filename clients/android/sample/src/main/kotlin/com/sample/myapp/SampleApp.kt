package com.sample.myapp

import android.app.Application
import android.content.Context
import com.google.firebase.messaging.FirebaseMessaging // Google's SDK: not compiled here
import handbell.android.Notifications
import handbell.android.follow
import handbell.android.handbellDevice
import handbell.device.Configuration
import handbell.device.Identity
import handbell.device.PushAddress
import handbell.device.SignOut
import handbell.device.Standing
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext
import org.json.JSONObject
import java.net.HttpURLConnection
import java.net.URL

/** What the app does with notifications. One object for its life. */
class SampleApp : Application() {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)

    /** An app whose users register by mail leaves the last argument out. */
    val handbell by lazy { handbellDevice(this, configuration, ::pushIdentity) }
    val notifications by lazy { Notifications(this, R.drawable.ic_bell, MainActivity::class.java) }

    override fun onCreate() {
        super.onCreate()
        notifications.makeChannel("Messages")
        handbell.follow(this)
        askForToken()
    }

    /** At each start: the token may have changed, and the server keeps those whose apps still live. */
    private fun askForToken() {
        FirebaseMessaging.getInstance().token.addOnSuccessListener(::received) // Google's SDK
    }

    /** Firebase has told the token. */
    fun received(token: String) {
        // Without a network it is made good when the app comes to the front.
        scope.launch { runCatching { handbell.refresh(PushAddress.Fcm(token)) } }
    }

    /** Call it from the app's sign-in: with `Fresh` where there is a back end, else with `Mail`. */
    suspend fun userSignedIn(identity: Identity): Standing? {
        askForToken() // a sign-out without a network has given it back
        return handbell.signIn(identity)
    }

    /** Call it from the app's sign-out, and let the next user in only when it has returned. */
    suspend fun userSignsOut() {
        if (handbell.signOut() == SignOut.DEFERRED) {
            // The server could not be told yet: nothing shall come meanwhile.
            FirebaseMessaging.getInstance().deleteToken() // Google's SDK
        }
        notifications.clear()
    }

    private companion object {
        val configuration = Configuration("https://push.example.com", "com.sample.myapp")
    }
}

val Context.sample: SampleApp get() = applicationContext as SampleApp

/**
 * Asks the app's own back end for a token for who is signed in; null when nobody is. Put the app's own
 * way of asking in its place: `examples/backend` answers to this one.
 */
private suspend fun pushIdentity(): String? =
    withContext(Dispatchers.IO) {
        val connection = URL("https://shop.example.com/push-identity").openConnection() as HttpURLConnection
        connection.requestMethod = "POST"
        if (connection.responseCode == HttpURLConnection.HTTP_UNAUTHORIZED) return@withContext null
        JSONObject(connection.inputStream.reader().readText()).getString("identity_token")
    }
