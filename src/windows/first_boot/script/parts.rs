//! The text of the script that is the same for every job.
//!
//! `%ERRORLEVEL%` inside a parenthesised block is expanded when the block is parsed, so there are no blocks here, only
//! labels (but for one that expands nothing). `call` expands its arguments twice, so names of files are handed on in
//! variables.

/// The beginning, which every path through it runs.
pub(super) const HEAD: &str = r#"@echo off
rem Installs the staged driver packages once. The service hyper2kvm-firstboot starts it.
setlocal EnableExtensions DisableDelayedExpansion
set "SELF=%~f0"
set "BASE=%SystemDrive%\hyper2kvm"
set "STAGE=%BASE%\drivers\virtio"
set "LOG=%SystemRoot%\Temp\hyper2kvm-firstboot.log"
set "SYS=%SystemRoot%\System32"
if exist "%SystemRoot%\Sysnative\cmd.exe" set "SYS=%SystemRoot%\Sysnative"
if /i "%~1"=="run" goto lock
if /i "%~1"=="child" goto do_%STEP%
rem The service manager ends a process that does not report to it within 30 seconds: go on as a detached child.
start "" /b "%SYS%\cmd.exe" /d /c ""%SELF%" run"
exit /b 0

:lock
rem Standard error goes to the lock: a second instance cannot open it for writing.
set "LOCKED="
call :run 2>"%BASE%\firstboot.lock"
if defined LOCKED goto unlock
call :log "another instance of the job is running"
exit /b 1
:unlock
del "%BASE%\firstboot.lock" >nul 2>&1
exit /b 0

:run
set "LOCKED=1"
set "STATE="
set "RESTART=0"
if exist "%BASE%\firstboot.done" goto remove
if exist "%BASE%\firstboot.failed" goto remove
set "EARLIER=0"
if exist "%BASE%\firstboot.attempts" set /p EARLIER=<"%BASE%\firstboot.attempts"
set "BEGUN=0"
if exist "%BASE%\firstboot.begun" set /p BEGUN=<"%BASE%\firstboot.begun"
set "N="
set /a N=EARLIER+1
if not defined N set "N=1"
set /a BEGUN=BEGUN+1
set "RF=0"
set "OF=0"
set "TOKEN=0"
del "%BASE%\firstboot.steps" "%BASE%\firstboot.rc" "%BASE%\firstboot.out" >nul 2>&1
"#;

/// After the limits on attempts were looked at.
pub(super) const BEGIN: &str = r#">"%BASE%\firstboot.begun" echo %BEGUN%
call :log "attempt %N% of @ATTEMPTS@, start %BEGUN%, %PROCESSOR_ARCHITECTURE%"
ver >>"%LOG%"
dir /b /s "%STAGE%\*.inf" >>"%LOG%" 2>&1
set "KEY=HKLM\SOFTWARE\Microsoft\Windows\CurrentVersion"
"%SYS%\reg.exe" query "%KEY%\Component Based Servicing\RebootPending" >nul 2>&1
if not errorlevel 1 call :log "Windows waits for a restart to complete an update"
"%SYS%\reg.exe" query "%KEY%\WindowsUpdate\Auto Update\RebootRequired" >nul 2>&1
if not errorlevel 1 call :log "Windows Update waits for a restart"
"#;

/// From the last step to the end.
pub(super) const TAIL: &str = r#"
if "%RF%"=="0" goto done
>"%BASE%\firstboot.attempts" echo %N%
if %N% GEQ @ATTEMPTS@ goto give_up
set "STATE=retry"
call :status
call :log "%RF% required steps failed; the next start of Windows tries again"
exit /b 1

:done
set "STATE=done"
call :status
call :log "done, %OF% optional steps failed"
if "%RESTART%"=="1" call :log "a restart of Windows completes the installation"
>"%BASE%\firstboot.done" echo done
goto remove

:give_up
set "STATE=failed"
call :status
call :log "given up; run setup.cmd by hand"
>"%BASE%\firstboot.failed" echo failed

:remove
del "%BASE%\firstboot.attempts" "%BASE%\firstboot.begun" "%BASE%\firstboot.steps" >nul 2>&1
del "%BASE%\firstboot.rc" "%BASE%\firstboot.out" "%BASE%\firstboot.tmp" "%BASE%\firstboot.progress" >nul 2>&1
"%SYS%\sc.exe" delete hyper2kvm-firstboot >nul 2>&1
@REBOOT@exit /b 0

:log
>>"%LOG%" echo %DATE% %TIME% "%~1"
goto :eof

:pause
rem Two seconds. Where ping is not allowed to wait, something else has to, until the clock has moved on.
set "THEN=%TIME:~0,8%"
"%SYS%\ping.exe" -n 3 127.0.0.1 >nul 2>&1
if not errorlevel 1 goto :eof
if exist "%SYS%\waitfor.exe" "%SYS%\waitfor.exe" /t 2 hyper2kvmPause >nul 2>&1
:pause_on
if "%TIME:~0,8%"=="%THEN%" goto pause_on
goto :eof

:wait
rem COUNT times two seconds
if %COUNT% LEQ 0 goto :eof
call :pause
set /a COUNT=COUNT-1
goto wait

:child
rem Runs the part :do_STEP in a process of its own, for at most POLLS_MAX times two seconds. Its exit code is in CODE.
set /a TOKEN=TOKEN+1
set "CODE=0"
set "RESULT=timeout"
set "POLLS=0"
del "%BASE%\firstboot.rc" "%BASE%\firstboot.out" >nul 2>&1
start "" /b "%SYS%\cmd.exe" /d /c ""%SELF%" child"
:poll
if not exist "%BASE%\firstboot.rc" goto poll_on
set "RC="
set /p RC=<"%BASE%\firstboot.rc"
set "RC_TOKEN="
for /f "tokens=1,2" %%A in ("%RC%") do set "RC_TOKEN=%%A"
if not "%RC_TOKEN%"=="%TOKEN%" goto poll_on
for /f "tokens=1,2" %%A in ("%RC%") do set "CODE=%%B"
set "RESULT=failed"
goto child_end
:poll_on
call :pause
set /a POLLS=POLLS+1
if %POLLS% LSS %POLLS_MAX% goto poll
:child_end
if exist "%BASE%\firstboot.out" type "%BASE%\firstboot.out" >>"%LOG%" 2>nul
goto :eof

:install
rem Installs the package ITEM. The outcome is in RESULT and CODE; OK is set if it counts as a success.
set "OK="
set "CODE=0"
set "RESULT=missing"
set "STEP=install"
if not exist "%ITEM%" goto install_end
>>"%LOG%" echo %DATE% %TIME% installing "%ITEM%"
call :child
if "%RESULT%"=="timeout" goto install_timeout
rem 259: no such device here, or the driver is there already; 3010 and 1641: a restart is needed
if "%CODE%"=="0" set "RESULT=ok"
if "%CODE%"=="259" set "RESULT=no-device"
if "%CODE%"=="3010" set "RESULT=restart"
if "%CODE%"=="1641" set "RESULT=restart"
if "%RESULT%"=="restart" set "RESTART=1"
if not "%RESULT%"=="failed" set "OK=1"
goto install_end
:install_timeout
"%SYS%\taskkill.exe" /f /im pnputil.exe >nul 2>&1
call :pause
:install_end
>>"%LOG%" echo %DATE% %TIME% %RESULT%, exit code %CODE%, "%ITEM%"
goto :eof

:execute
rem Runs the command of the step STEP. As :install.
set "OK="
set "TRIES=0"
>>"%LOG%" echo %DATE% %TIME% running "%NAME%"
:execute_again
call :child
if "%RESULT%"=="timeout" goto execute_end
for %%K in (%OK_CODES%) do if "%CODE%"=="%%K" set "OK=1"
if defined OK goto execute_ok
set "AGAIN="
for %%K in (%RETRY_CODES%) do if "%CODE%"=="%%K" set "AGAIN=1"
if not defined AGAIN goto execute_end
set /a TRIES=TRIES+1
if %TRIES% GTR %RETRIES% goto execute_end
set "COUNT=%PAUSES%"
call :wait
goto execute_again
:execute_ok
set "RESULT=ok"
if "%CODE%"=="3010" set "RESULT=restart"
if "%CODE%"=="1641" set "RESULT=restart"
if "%RESULT%"=="restart" set "RESTART=1"
:execute_end
>>"%LOG%" echo %DATE% %TIME% %RESULT%, exit code %CODE%, "%NAME%"
goto :eof

:do_end
>"%BASE%\firstboot.tmp" echo %TOKEN% %ERRORLEVEL%
move /y "%BASE%\firstboot.tmp" "%BASE%\firstboot.rc" >nul
exit /b 0
"#;

/// Installs what else is below the staging folder; `@KNOWN@` is a line for each package that the job knows.
pub(super) const OTHERS: &str = r#"
:other
rem What an administrator put there in addition; the packages of the job have their own steps.
@KNOWN@set "POLLS_MAX=@POLLS@"
call :install
if not defined OK set /a OF=OF+1
set "SHOWN=%ITEM%"
set "SHOWN=%SHOWN:*\drivers\virtio\=%"
set "SHOWN=%SHOWN:\=\\%"
>>"%BASE%\firstboot.steps" echo %COMMA%{"kind":"package","name":"%SHOWN%","required":false,"result":"%RESULT%","code":%CODE%,"detail":""}
set "COMMA=,"
goto :eof
"#;

/// The result for programs: `@STEPS@` is a line for each step.
pub(super) const STATUS: &str = r#"
:status
set "BOOL=false"
if "%RESTART%"=="1" set "BOOL=true"
>"%BASE%\firstboot.new" echo {"schema":"winject.firstboot.v1","state":"%STATE%","attempt":%N%,"begun":%BEGUN%,"restart_needed":%BOOL%,
>>"%BASE%\firstboot.new" echo "failed_required":%RF%,"failed_optional":%OF%,"steps":[
@STEPS@if exist "%BASE%\firstboot.steps" type "%BASE%\firstboot.steps" >>"%BASE%\firstboot.new"
>>"%BASE%\firstboot.new" echo ]}
move /y "%BASE%\firstboot.new" "%BASE%\firstboot.json" >nul
set "LINE=winject-firstboot: %STATE% attempt=%N% failed_required=%RF% failed_optional=%OF% restart=%RESTART%"
start "" /b "%SYS%\cmd.exe" /d /c ">COM1 echo %LINE%" >nul 2>&1
goto :eof
"#;
