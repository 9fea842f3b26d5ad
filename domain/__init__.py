"""What is allowed and what follows. No clock, no network, no commit: `now` is passed in.

The house's words, one meaning each:

balance, held, available  what a wallet has; what is set aside for calls; the first less the second
reserve, extend           sets money aside for a call (a hold), and sets more aside while it lives
commit                    charges what the call cost and gives the rest of its hold back
release, expire           gives a hold back for a call that never was, or that nobody settled
entry                     one line of the ledger, debit or credit, never changed (a note moves none)
owed                      what a refund or a call took beyond what was there; paid first
dispute                   a payment that its buyer contests: open, then won (ours) or lost
cause                     which dispute or payment a freeze is for; a job reads it again
threshold                 a level of available; crossed below it, armed again by a top-up
alert                     what a person has to know: raised once for each cause, then cleared
freeze                    a reason why a wallet may not spend; frozen while any reason stands
suspend                   what is done to a Twilio subaccount
pause                     what is done to a campaign
posture                   what an organization may do now, with the reason
desired, actual           Twilio's state as it should be, and as Twilio last said it is
generation                how often desired changed: the newest wins, whatever order jobs run in
report, look              what a webhook claimed; what the provider itself answered when asked
job                       what is still owed: staged, claimed, then finished, refused, postponed or
                          failed; dead when its policy is used up, until an operator redrives it
schedule, tick            a job that is staged every so often, and one time that it is
act                       what an operator did by hand to a job, with who and why
replay, conflict          the same request again; the same key with another request
"""
