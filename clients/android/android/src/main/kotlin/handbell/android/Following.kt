package handbell.android

import android.app.Activity
import android.app.Application
import android.content.BroadcastReceiver
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.Bundle
import handbell.device.HandbellDevice
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.launch

/**
 * Refreshes the device when what the server knows may be out of date: the app comes to the front, the
 * time zone or the language changes. Call it once, in the app's `Application`.
 */
public fun HandbellDevice.follow(application: Application) {
    val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)
    val refresh = { scope.launch { refreshIfNeeded() } }
    application.registerActivityLifecycleCallbacks(Front { refresh() })
    val changes = IntentFilter(Intent.ACTION_TIMEZONE_CHANGED)
    changes.addAction(Intent.ACTION_LOCALE_CHANGED)
    application.registerReceiver(
        object : BroadcastReceiver() {
            override fun onReceive(context: Context, intent: Intent) {
                refresh()
            }
        },
        changes,
    )
}

/** Tells when the first of the app's activities becomes visible. */
private class Front(private val hasCome: () -> Unit) : Application.ActivityLifecycleCallbacks {
    private var visible = 0

    override fun onActivityStarted(activity: Activity) {
        if (visible++ == 0) hasCome()
    }

    override fun onActivityStopped(activity: Activity) {
        visible--
    }

    override fun onActivityCreated(activity: Activity, savedInstanceState: Bundle?) = Unit

    override fun onActivityResumed(activity: Activity) = Unit

    override fun onActivityPaused(activity: Activity) = Unit

    override fun onActivitySaveInstanceState(activity: Activity, outState: Bundle) = Unit

    override fun onActivityDestroyed(activity: Activity) = Unit
}
