package com.sample.myapp

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.util.Log
import handbell.android.tappedMessage
import handbell.device.PushMessage
import handbell.device.Receipt
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch

class MainActivity : Activity() {
    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        follow(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        follow(intent)
    }

    /**
     * Call it at a moment when the answer is likely to be yes, such as after the sign-in. A refusal
     * stops nothing: the notifications come, and Android does not show them.
     */
    fun askForPermission() {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU) {
            requestPermissions(arrayOf(Manifest.permission.POST_NOTIFICATIONS), 0)
        }
    }

    private fun follow(intent: Intent) {
        val message = tappedMessage(intent) ?: return
        show(message)
        // The user does not wait for the network.
        CoroutineScope(Dispatchers.Default).launch { sample.handbell.report(Receipt.OPENED, message) }
    }

    /** Shows what a tapped notification is about. Put the app's own navigation here. */
    private fun show(message: PushMessage) {
        val (target, url) = message.target to message.url
        when {
            target is PushMessage.Target.Entity -> Log.i("Sample", "Show ${target.dataClass} ${target.primaryKey}")
            target is PushMessage.Target.DataClass -> Log.i("Sample", "Show the list of ${target.name}")
            url != null -> startActivity(Intent(Intent.ACTION_VIEW, Uri.parse(url)))
        }
    }
}
